import { randomBytes } from 'node:crypto'
import {
  type CommandRequest,
  type CommandRun,
  hastyGraceMs,
  type StartingCall,
  startCommandRun,
} from './command-run.ts'
import { commandLine, endInWords } from './command-text.ts'

/** More are a loop of the model's, not a plan. */
const maxRunning = 20
/** Ended commands whose end the model has not read yet; older ones are forgotten, since their output takes memory and disk. */
const maxUnread = 20
/** Ids that are remembered only to say what became of them. */
const maxRemembered = 100

/**
 * Every command of a session. One that is `kept` outlives the call that started it, and the model knows it by its id; it stays until
 * its end was read (`forget`), or the session ends.
 */
export interface RunningCommands {
  /** Rejects with an Error for the model when it cannot be started, or when `mayBeKept` and there are too many. */
  start(request: CommandRequest & { mayBeKept: boolean }, call: StartingCall): Promise<CommandRun>
  keep(run: CommandRun, call: StartingCall): void
  /** Throws an Error for the model, with the ids that there are. */
  find(commandId: string): CommandRun
  /** Its end is known, and its output not needed any more. */
  forget(run: CommandRun): Promise<void>
  /** Ends those that are kept, and resolves when what they said is kept, too; their ends can still be read. Never rejects. */
  endKept(): Promise<void>
  /** Ends all of them, with everything that they started; none can be started after that. Never rejects; safe to call twice. */
  endAll(): Promise<void>
}

export function createRunningCommands(): RunningCommands {
  const all = new Set<CommandRun>()
  const kept = new Map<string, CommandRun>()
  const pastEnds = new Map<string, string>()
  /** Ends of kept commands whose output is on its way to the control plane. */
  const settling = new Set<Promise<void>>()
  let starting = 0
  let hasEnded = false

  const running = () => [...kept.values()].filter(({ end }) => end === undefined)

  function list(): string {
    if (kept.size === 0) return 'There are no commands in the background.'
    const lines = [...kept.values()].map(
      (run) => `${run.id} (${run.end ? 'ended, not read yet' : 'running'}: ${commandLine(run, 60)})`,
    )
    return `Commands: ${lines.join(', ')}.`
  }

  function requireRoom(): void {
    if (running().length + starting < maxRunning) return
    throw new Error(
      `${maxRunning} commands are running, and more are not allowed: end one with stop_command. ${list()}`,
    )
  }

  function newId(): string {
    // Not counted: a conversation may go on in another process, where an old id must not mean a new command.
    const id = `cmd-${randomBytes(3).toString('hex')}`
    return kept.has(id) || pastEnds.has(id) ? newId() : id
  }

  async function forget(run: CommandRun): Promise<void> {
    all.delete(run)
    if (kept.delete(run.id) && run.end) {
      pastEnds.set(run.id, endInWords(run.end))
      for (const id of [...pastEnds.keys()].slice(0, -maxRemembered)) pastEnds.delete(id)
    }
    await run.dispose()
  }

  async function start(request: CommandRequest & { mayBeKept: boolean }, call: StartingCall): Promise<CommandRun> {
    if (request.mayBeKept) requireRoom()
    if (request.mayBeKept) starting++
    try {
      const run = await startCommandRun(newId(), request, call)
      all.add(run)
      if (!hasEnded) return run
      await run.stop(hastyGraceMs)
      await forget(run)
      throw new Error('The session is over; nothing can be started any more.')
    } finally {
      if (request.mayBeKept) starting--
    }
  }

  /** Also what the model never reads is kept, for people. */
  async function settle(run: CommandRun, call: StartingCall): Promise<void> {
    const end = await run.ended
    // Viewers would not hear of it otherwise: the call that it belongs to is over.
    const say = (text: string) =>
      call.sink.emit({ type: 'terminal_output', data: { toolCallId: call.id, text: `\n[${run.id}: ${text}.]\n` } })
    say(endInWords(end))
    // In the order of their ends.
    if (kept.delete(run.id)) kept.set(run.id, run)
    const unread = [...kept.values()].filter((other) => other.end !== undefined)
    for (const old of unread.slice(0, -maxUnread)) void forget(old)
    const blobId = await run.keepOutput()
    if (blobId !== undefined) say(`all of its output is kept as blob ${blobId}`)
  }

  async function endKept(): Promise<void> {
    await Promise.allSettled([...kept.values()].map((run) => run.stop(hastyGraceMs)))
    await Promise.allSettled(settling)
  }

  return {
    start,
    keep(run, call) {
      kept.set(run.id, run)
      const settled = settle(run, call).finally(() => settling.delete(settled))
      settling.add(settled)
    },
    find(commandId) {
      const run = kept.get(commandId)
      if (run) return run
      const past = pastEnds.get(commandId)
      const what = past === undefined ? `There is no command ${commandId}.` : `${commandId} is over: ${past}.`
      throw new Error(`${what} ${list()}`)
    },
    forget,
    endKept,
    async endAll() {
      hasEnded = true
      const runs = [...all]
      await Promise.allSettled([endKept(), ...runs.map((run) => run.stop(hastyGraceMs))])
      await Promise.allSettled(runs.map(forget))
    },
  }
}
