import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { until } from './poll.ts'

/** Folder of the programs of this tree, `oz.mjs` and `oz-agent-worker.mjs`. */
export const programs = fileURLToPath(new URL('../../packages/cli/bin/', import.meta.url))

export interface WorkerProgram extends AsyncDisposable {
  log(): string
}

/**
 * `oz-agent-worker` with the direct backend as a process, with everything that it writes in `folder`. Resolves once it listens for tasks; its end is
 * that of the test, and of its agents.
 */
export async function startWorkerProgram(
  folder: string,
  { workerId, env, flags = [] }: { workerId: string; env: NodeJS.ProcessEnv; flags?: string[] },
): Promise<WorkerProgram> {
  const file = join(folder, `worker-${workerId}.yaml`)
  const folders = { state_dir: join(folder, 'state'), workspace_root: join(folder, 'workspaces') }
  writeFileSync(file, JSON.stringify({ backend: { direct: { oz_path: join(programs, 'oz.mjs'), ...folders } } }))
  const args = ['--config-file', file, '--worker-id', workerId, '--backend', 'direct', '--drain', 'stop', ...flags]
  const child = spawn(process.execPath, [join(programs, 'oz-agent-worker.mjs'), ...args], {
    env: { PATH: process.env.PATH, HOME: folder, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const ended = once(child, 'close')
  let log = ''
  child.stderr.on('data', (chunk: Buffer) => {
    log += chunk
  })
  const stop = async () => {
    child.kill('SIGTERM')
    await ended
  }
  try {
    await until(() => log.includes('Listening for tasks') || child.exitCode !== null, Boolean, { timeoutMs: 30_000 })
    if (child.exitCode !== null) throw new Error(`the worker ended:\n${log}`)
  } catch (error) {
    await stop()
    throw error
  }
  return { log: () => log, [Symbol.asyncDispose]: stop }
}
