import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'

/** The built programs, started as a user starts them. */
export const dist = (program: 'oz' | 'oz-agent-worker') => resolve(import.meta.dirname, `../dist/${program}.mjs`)

/** A private home for whatever is started: nothing of the user's is touched. */
export function scratchHome() {
  const folder = mkdtempSync(join(tmpdir(), 'oz-bench-'))
  chmodSync(folder, 0o711)
  const dataDir = join(folder, 'data')
  mkdirSync(join(folder, 'config'))
  return {
    dataDir,
    env: {
      PATH: process.env.PATH ?? '',
      HOME: folder,
      XDG_CONFIG_HOME: join(folder, 'config'),
      XDG_STATE_HOME: join(folder, 'state'),
      OZ_DATA_DIR: dataDir,
      OZ_LISTEN: '127.0.0.1:0',
    } as Record<string, string>,
    remove: () => rmSync(folder, { recursive: true, force: true }),
  }
}

/** No benchmark waits for a program without an end: a start, a stop and a single command each have this long. */
const patienceMs = 60_000

/** Runs to its end and answers the milliseconds from spawn to exit. */
export async function timeToExit(args: string[]): Promise<number> {
  const from = performance.now()
  const child = spawn(process.execPath, args, { stdio: 'ignore', timeout: patienceMs, killSignal: 'SIGKILL' })
  const [code] = await once(child, 'exit')
  if (code !== 0) throw new Error(`node ${args.join(' ')} ended with ${code}`)
  return performance.now() - from
}

/** Starts `oz server` or `oz up` and waits for what it prints as JSON lines. */
export async function startProgram(args: string[], env: Record<string, string>, until: string) {
  const from = performance.now()
  const command = [dist('oz'), ...args, '--output-format', 'ndjson']
  const child = spawn(process.execPath, command, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let lastWords = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    if (process.env.BENCH_DEBUG) process.stderr.write(text)
    lastWords = (lastWords + text).slice(-2_000)
  })
  let url = ''
  const ready = Promise.withResolvers<void>()
  const failed = (problem: string) => ready.reject(new Error(`oz ${args.join(' ')} ${problem}\n${lastWords}`))
  child.once('exit', (code, signal) => failed(`ended with ${code ?? signal}`))
  const tooLate = setTimeout(failed, patienceMs, `did not say ${until} within ${patienceMs / 1000} s`)
  createInterface({ input: child.stdout }).on('line', (line) => {
    const object = JSON.parse(line) as { type?: string; url?: string }
    if (object.type === 'server_ready') url = object.url ?? ''
    if (object.type === until) ready.resolve()
  })
  try {
    await ready.promise
  } catch (error) {
    await stop(child)
    throw error
  } finally {
    clearTimeout(tooLate)
  }
  return { child, url, readyMs: performance.now() - from, stop: () => stop(child), kill: () => stop(child, 'SIGKILL') }
}

/** What `oz up` would start, but with all that it keeps in this folder: as root that would be /var/lib/oz. */
export function startWorkerProcess(
  stateDir: string,
  env: Record<string, string>,
  { ozPath = dist('oz'), workerId = 'bench' } = {},
): ChildProcess {
  const config = `${stateDir}.yaml`
  writeFileSync(config, JSON.stringify({ backend: { direct: { state_dir: stateDir, oz_path: ozPath } } }))
  const args = [dist('oz-agent-worker'), '--backend', 'direct', '--worker-id', workerId, '--config-file', config]
  // Nobody adopts what a measured worker leaves.
  args.push('--drain', 'stop')
  return spawn(process.execPath, args, { env, stdio: ['ignore', 'ignore', process.env.BENCH_DEBUG ? 2 : 'ignore'] })
}

/** Resolves when it has ended, which it may have done already. */
export async function stop(child: ChildProcess | undefined, signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
  if (!child || child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill(signal)
  const kill = setTimeout(() => child.kill('SIGKILL'), patienceMs)
  await exited
  clearTimeout(kill)
}

/** The process and everything below it, and the database, which stands on its own feet. */
export function processesOf(rootPid: number, dataDir: string): number[] {
  const postmaster = Number(readFileSync(join(dataDir, 'postgres', 'postmaster.pid'), 'utf8').split('\n', 1)[0])
  return processesBelow([rootPid, postmaster])
}

/** These processes and everything below them. */
export function processesBelow(roots: number[]): number[] {
  const parents = new Map<number, number>()
  const found: number[] = []
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8')
      parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]))
    } catch {
      // It ended while we looked.
    }
  }
  for (const pid of parents.keys())
    for (let at: number | undefined = pid; at; at = parents.get(at))
      if (roots.includes(at)) {
        found.push(pid)
        break
      }
  return found
}

/** `Rss` or `Pss` in MB. */
export function memoryMb(pid: number, kind: 'Rss' | 'Pss'): number {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  return Number(new RegExp(`^${kind}:\\s+(\\d+)`, 'm').exec(rollup)?.[1]) / 1024
}

/**
 * User and system time so far, in clock ticks (100 a second on Linux), with that of children that have ended: over a whole family of processes
 * nothing is lost when one of them ends.
 */
export function cpuTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0)
}
