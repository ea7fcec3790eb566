import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { executionIdVariable, identifyProcess, isSameProcess, type ProcessIdentity, sleep } from '@openoz/machine'
import { markerVariable, type RoundFolder } from './round-folder.ts'

/** A process that this round has started, directly or through others; nothing else on the machine is ever signalled. */
export interface OwnProcess extends ProcessIdentity {
  argv: string[]
  /** Of an agent, its tools and its shim. */
  executionId: string | undefined
}

/** Without this process. Those of other users are only seen by root, whose tasks alone have other users. */
export function listOwnProcesses(folder: Pick<RoundFolder, 'machine' | 'marker'>): OwnProcess[] {
  const found: OwnProcess[] = []
  for (const { pid, argv, environment } of process.platform === 'linux' ? fromProc() : fromPs()) {
    const isOurs =
      environment.includes(`${markerVariable}=${folder.marker}`) ||
      argv.some((word) => word.includes(`${folder.machine}/`))
    if (!isOurs || pid === process.pid) continue
    const identity = identifyProcess(pid)
    if (!identity) continue
    const entry = environment.find((variable) => variable.startsWith(`${executionIdVariable}=`))
    found.push({ ...identity, argv, executionId: entry?.slice(executionIdVariable.length + 1) })
  }
  return found
}

interface Listed {
  pid: number
  argv: string[]
  environment: string[]
}

function fromProc(): Listed[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => ({
      pid: Number(name),
      argv: wordsOf(`/proc/${name}/cmdline`),
      environment: wordsOf(`/proc/${name}/environ`),
    }))
    .filter(({ argv }) => argv.length > 0)
}

function wordsOf(file: string): string[] {
  try {
    return readFileSync(file, 'utf8')
      .split('\0')
      .filter((word) => word !== '')
  } catch {
    return []
  }
}

/** macOS shows no environments. */
function fromPs(): Listed[] {
  const text = execFileSync('ps', ['-Aww', '-o', 'pid=,command='], { encoding: 'utf8', maxBuffer: 32 * 1024 * 1024 })
  return text.split('\n').flatMap((line) => {
    const [, pid, command = ''] = /^\s*(\d+)\s+(.*)$/.exec(line) ?? []
    return pid === undefined ? [] : [{ pid: Number(pid), argv: command.split(' '), environment: [] }]
  })
}

/** The agents' own processes, without shims and tools, in the order of their executions. */
export function agentsAmong(processes: readonly OwnProcess[]): Map<string, OwnProcess[]> {
  const agents = processes.filter(
    ({ argv, executionId }) =>
      executionId !== undefined &&
      /^node/.test(basename(argv[0] ?? '')) &&
      argv.includes('agent') &&
      argv.includes('run'),
  )
  const sorted = agents.toSorted((a, b) => ((a.executionId ?? '') < (b.executionId ?? '') ? -1 : 1))
  return Map.groupBy(sorted, ({ executionId }) => executionId ?? '')
}

/** Whether it was sent. By identity: the pid may belong to somebody else by now. */
export function signalOwn(target: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (!isSameProcess(target)) return false
  try {
    return process.kill(target.pid, signal)
  } catch {
    return false
  }
}

/** A look can miss what is just becoming another program. */
const emptyLooksNeeded = 3
const patienceMs = 20_000

/** Ends everything of the round. PostgreSQL is asked first: killed, it would leave its piece of shared memory to the machine. */
export async function endOwnProcesses(folder: Pick<RoundFolder, 'machine' | 'marker'>): Promise<OwnProcess[]> {
  const giveUpAt = performance.now() + patienceMs
  const killAt = performance.now() + 5_000
  let emptyLooks = 0
  for (;;) {
    const alive = listOwnProcesses(folder)
    emptyLooks = alive.length === 0 ? emptyLooks + 1 : 0
    if (emptyLooks === emptyLooksNeeded || performance.now() > giveUpAt) return alive
    for (const own of alive) {
      const isDatabase = basename(own.argv[0] ?? '') === 'postgres' && performance.now() < killAt
      signalOwn(own, isDatabase ? 'SIGQUIT' : 'SIGKILL')
      // A frozen one gets to its SIGQUIT only when it continues.
      if (isDatabase) signalOwn(own, 'SIGCONT')
    }
    await sleep(50)
  }
}
