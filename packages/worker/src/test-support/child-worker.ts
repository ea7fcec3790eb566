import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { WorkerFlagValues } from '../worker-flags.ts'
import type { ControlPlane } from './control-plane.ts'
import { workerKey, writeOz } from './worker.ts'

/** As if the agent of a task had given its last sign so long ago. */
export function makeSilent(stateDir: string, executionId: string, ms: number): void {
  const folder = join(stateDir, 'tasks', executionId)
  const then = new Date(Date.now() - ms)
  for (const path of [join(folder, 'task.json'), join(folder, 'spool'), folder]) utimesSync(path, then, then)
}

/** A worker as a process of its own, for tests that kill it or send it signals. Its state is in `folder`, where `startWorker` has its own. */
export function spawnWorker(
  cp: Pick<ControlPlane, 'url'>,
  folder: string,
  { oz, direct = {}, flags = {} }: { oz: string; direct?: Record<string, string>; flags?: WorkerFlagValues },
) {
  const stateDir = join(folder, 'state')
  const config = join(folder, 'worker.yaml')
  writeFileSync(
    config,
    JSON.stringify({ backend: { direct: { oz_path: writeOz(folder, oz), state_dir: stateDir, ...direct } } }),
  )
  const all: WorkerFlagValues = { serverUrl: cp.url, workerId: 'test-worker', backend: 'direct', configFile: config }
  const program = fileURLToPath(new URL('./worker-process.ts', import.meta.url))
  const child: ChildProcess = spawn(process.execPath, [program, JSON.stringify({ ...all, ...flags })], {
    env: { PATH: process.env.PATH, HOME: folder, OZ_API_KEY: workerKey },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let log = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    log += chunk.toString()
  })
  const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
  return {
    stateDir,
    pid: child.pid ?? 0,
    exited,
    log: () => log,
    signal: (name: NodeJS.Signals) => child.kill(name),
    async kill() {
      child.kill('SIGKILL')
      await exited
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGCONT')
      child.kill('SIGKILL')
      await exited
    },
  }
}
