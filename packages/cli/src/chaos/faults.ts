import { appendFileSync, existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { findProcesses, sleep } from '@openoz/machine'
import { inflictOnContainer, inflictOnEngine } from './container-faults.ts'
import { freeze, type Inflicted } from './inflicted.ts'
import { agentsAmong, listOwnProcesses, signalOwn } from './own-processes.ts'
import type { Fault } from './plan.ts'
import type { RoundFolder } from './round-folder.ts'
import type { Stack } from './stack.ts'
import type { SupervisedProcess } from './supervised-process.ts'

/** Does the planned damage, one fault after the other; each ends by itself, some while the next ones have begun. */
export interface Faults {
  /** By `target how`. A fault that found nobody counts as `nobody`. */
  readonly done: ReadonlyMap<string, number>
  /** Resolves when all were done or the signal was aborted, and nothing is frozen or cut any more. */
  finished: Promise<void>
}

export function startFaults(input: {
  faults: readonly Fault[]
  stack: Stack
  folder: RoundFolder
  onFault: (text: string) => void
  signal: AbortSignal
}): Faults {
  const { faults, stack, folder, onFault, signal } = input
  const done = new Map<string, number>()
  const lasting: Promise<void>[] = []
  const run = async () => {
    for (const fault of faults) {
      try {
        await sleep(fault.afterMs, signal)
      } catch {
        break
      }
      const { victim, lasts, forMs } = await inflict(fault, { stack, folder, signal })
      const name = victim === undefined ? 'nobody' : `${fault.target} ${fault.how}`
      done.set(name, (done.get(name) ?? 0) + 1)
      const entry = { at: new Date().toISOString(), ...fault, victim: victim ?? null }
      appendFileSync(join(folder.logs, 'faults.ndjson'), `${JSON.stringify(entry)}\n`, { mode: 0o600 })
      if (victim !== undefined)
        onFault(`${fault.how} ${victim}${forMs === undefined ? '' : ` for ${(forMs / 1000).toFixed(1)} s`}`)
      if (lasts !== undefined) lasting.push(lasts)
    }
    await Promise.all(lasting)
  }
  return { done, finished: run() }
}

interface Scene {
  stack: Stack
  folder: RoundFolder
  signal: AbortSignal
}

const signals = { kill: 'SIGKILL', term: 'SIGTERM', leave: 'SIGUSR2', restart: 'SIGINT' } as const

async function inflict(fault: Fault, scene: Scene): Promise<Inflicted> {
  const { stack, folder, signal } = scene
  switch (fault.target) {
    case 'worker':
    case 'server': {
      if (fault.how === 'outage') {
        const processes = stack.servers.flatMap(({ identity }) => identity ?? [])
        return freeze(fault, { victim: 'all servers', processes, signal })
      }
      if (fault.how === 'kill-starting') return killStarting(fault, scene)
      const programs = (fault.target === 'worker' ? stack.workers : stack.servers).filter(({ identity }) => identity)
      const program = programs[fault.index % programs.length]
      if (!program?.identity) return { victim: undefined }
      if (fault.how === 'stop') return freeze(fault, { victim: program.name, processes: [program.identity], signal })
      program.signal(signals[fault.how])
      return { victim: describe(program) }
    }
    case 'agent': {
      if (stack.engine) return await inflictOnContainer(fault, { engine: stack.engine, folder, signal })
      const agents = [...agentsAmong(listOwnProcesses(folder)).entries()]
      const [executionId, processes] = agents[fault.index % agents.length] ?? []
      if (!processes) return { victim: undefined }
      const victim = `agent of execution ${executionId}`
      if (fault.how === 'stop') return freeze(fault, { victim, processes, signal })
      for (const own of processes) signalOwn(own, 'SIGKILL')
      return { victim }
    }
    case 'database': {
      const postmaster = listOwnProcesses(folder).find(({ pid }) => pid === stack.database.pid)
      if (!postmaster) return { victim: undefined }
      if (fault.how === 'stop') {
        // Its children wear names of their own; those that work on a statement hold locks.
        const processes = await findProcesses({ root: postmaster })
        return freeze(fault, { victim: 'database', processes, signal })
      }
      signalOwn(postmaster, signals[fault.how])
      return { victim: 'database' }
    }
    case 'engine':
      return stack.engine ? inflictOnEngine(fault, { engine: stack.engine, folder, signal }) : { victim: undefined }
    case 'network': {
      const { links } = stack
      const link = fault.link === 'database' ? links.database[fault.index % links.database.length] : links[fault.link]
      if (!link) return { victim: undefined }
      const heal = link.begin(fault.how)
      const lasts = sleep(fault.forMs, signal).then(heal, heal)
      return { victim: `network of ${fault.link}`, forMs: fault.forMs, lasts }
    }
    default:
      return fault satisfies never
  }
}

/** How long the next task is waited for. */
const nextTaskMs = 6_000
/** A start on a busy machine takes about so long. */
const startMs = 600

async function killStarting({ index }: Fault, { stack, signal }: Scene): Promise<Inflicted> {
  const known = new Set(taskFolders(stack))
  const giveUpAt = performance.now() + nextTaskMs
  while (performance.now() < giveUpAt && !signal.aborted) {
    const folder = taskFolders(stack).find((path) => !known.has(path))
    if (folder === undefined) {
      await sleep(5, signal).catch(() => {})
      continue
    }
    await sleep(index % startMs, signal).catch(() => {})
    const pid = workerOf(folder)
    const worker = stack.workers.find(({ identity }) => identity && identity.pid === pid)
    if (!worker?.signal('SIGKILL')) break
    return { victim: `${worker.name} (${pid}), ${index % startMs} ms into a task` }
  }
  return { victim: undefined }
}

function taskFolders({ stateDirs }: Stack): string[] {
  return stateDirs
    .map((dir) => join(dir, 'tasks'))
    .flatMap((dir) => (existsSync(dir) ? readdirSync(dir).map((name) => join(dir, name)) : []))
}

function workerOf(taskFolder: string): number | undefined {
  try {
    const record = JSON.parse(readFileSync(join(taskFolder, 'task.json'), 'utf8')) as {
      worker?: { pid: number } | null
    }
    return record.worker?.pid
  } catch {
    return undefined
  }
}

function describe({ name, identity }: SupervisedProcess): string {
  return identity ? `${name} (${identity.pid})` : name
}
