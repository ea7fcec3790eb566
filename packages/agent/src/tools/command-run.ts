import { existsSync } from 'node:fs'
import { constants } from 'node:os'
import { countOomKills, endProcessTree, hasOomKillSince } from '@openoz/machine'
import { firstEnd } from '../child-end.ts'
import { createLiveOutput } from '../live-output.ts'
import type { CallContext } from './call-context.ts'
import { type CommandOutput, createCommandOutput } from './command-output.ts'
import { type CommandExit, startPipedCommand } from './command-process.ts'
import { openPseudoTerminal } from './pseudo-terminal.ts'
import { createTerminalText } from './pseudo-terminal-text.ts'

/** Every process of one command has it, also those that left their parents: `NAME=id` is the marker that they are found by. */
const commandIdVariable = 'OZ_COMMAND_ID'
/** How long a command whose time is over may take to tidy up. */
export const politeGraceMs = 5_000
/** The same where a person waits for it: an interrupt shall have its effect within a second. */
export const hastyGraceMs = 500
/** What survived even SIGKILL must not hold the run. */
const givenUpMs = 2_500

/** The call that a command belongs to. */
export type StartingCall = CallContext & { id: string }

export interface CommandRequest {
  command: string
  pty: boolean
  /** A pipe to write to. Terminals always have an input. */
  input: boolean
  /** undefined: until it ends. */
  timeoutMs: number | undefined
}

export interface CommandEnd extends CommandExit {
  /** Its time was over, so it was ended. */
  isTimedOut: boolean
  /** It, or the last thing in it, was killed, and the kernel has ended something meanwhile because memory ran out. */
  ranOutOfMemory: boolean
}

/** One command from its start to its end, whichever calls come to it in between. */
export interface CommandRun {
  readonly id: string
  readonly command: string
  readonly timeoutMs: number | undefined
  /** Set once it has ended, with all of its output. */
  readonly end: CommandEnd | undefined
  /** Resolves with that. Never rejects. */
  readonly ended: Promise<CommandEnd>
  readonly hasNewOutput: boolean
  /** What the model has not read yet, cut in the middle when it is long. */
  takeNewOutput(): string
  /** The same without taking it. */
  peekNewOutput(): string
  /** After its end: the id of the whole output, where it was too long for one look. Kept once, however often it is asked for. Never rejects. */
  keepOutput(): Promise<string | undefined>
  /** Resolves with the next thing that happens, or after `ms`. Rejects with the signal's reason. */
  nextNews(ms: number, signal: AbortSignal): Promise<'output' | 'ended' | 'silence'>
  /** Throws an Error for the model when the command takes no input. */
  write(input: string): void
  closeInput(): void
  readonly pendingInputBytes: number
  /** From now on it runs until it ends. */
  liftTimeLimit(): void
  /** Ends it with everything that it started. Never rejects; safe to call twice. */
  stop(graceMs: number): Promise<CommandEnd>
  /** Forgets its output, once it is kept. Safe to call twice. */
  dispose(): Promise<void>
}

/**
 * Starts a command whose output goes to the viewers of `call`, also when that is over. Rejects with an Error for the model when it cannot be
 * started; nothing is left then.
 */
export async function startCommandRun(id: string, request: CommandRequest, call: StartingCall): Promise<CommandRun> {
  const { command, pty, input, timeoutMs } = request
  const { toolsFolder } = call.workspace
  if (!existsSync(toolsFolder))
    throw new Error(`The folder ${toolsFolder}, which commands start in, does not exist any more.`)
  const marker = crypto.randomUUID()
  const live = createLiveOutput((text) =>
    call.sink.emit({ type: 'terminal_output', data: { toolCallId: call.id, text } }),
  )
  const waiting = new Set<(news: 'output' | 'ended') => void>()
  const tell = (news: 'output' | 'ended') => {
    for (const resolve of waiting) resolve(news)
    waiting.clear()
  }
  const output = await createCommandOutput({
    // A key of its own: ids of tool calls are the model's, and may come twice.
    masking: call.masker.stream(`command ${marker}`),
    onText(text) {
      live.push(text)
      tell('output')
    },
    filter: pty ? createTerminalText() : undefined,
    maxBytes: call.limits.output_max_bytes,
    scratchFolder: call.scratchFolder,
  })
  const options = {
    command,
    folder: toolsFolder,
    env: { ...call.env, [commandIdVariable]: marker },
    onOutput: output.push,
  }
  const oomKillsBefore = countOomKills()
  const process = await (pty ? openPseudoTerminal(options) : startPipedCommand({ ...options, input })).catch(
    async (error: unknown) => {
      output.end()
      await output.dispose()
      throw error
    },
  )

  let end: CommandEnd | undefined
  let kept: Promise<string | undefined> | undefined
  let isTimedOut = false
  const timer =
    timeoutMs === undefined
      ? undefined
      : setTimeout(() => {
          isTimedOut = true
          void stop(politeGraceMs)
        }, timeoutMs)
  const given = Promise.withResolvers<CommandExit>()
  let treeEnd: Promise<unknown> = Promise.resolve()
  const ended = Promise.race([process.exited, given.promise]).then(async (exit) => {
    clearTimeout(timer)
    // A shell goes at the first SIGTERM; what it had started may take its time. Another stop may have come meanwhile.
    let awaited: Promise<unknown>
    do {
      awaited = treeEnd
      await awaited
    } while (awaited !== treeEnd)
    output.end()
    live.end()
    const isKilled = exit.signal === 'SIGKILL' || exit.code === 128 + constants.signals.SIGKILL
    end = { ...exit, isTimedOut, ranOutOfMemory: isKilled && hasOomKillSince(oomKillsBefore) }
    tell('ended')
    return end
  })

  async function stop(graceMs: number): Promise<CommandEnd> {
    if (end) return end
    const selection = { root: process.root, marker: `${commandIdVariable}=${marker}` }
    treeEnd = Promise.all([treeEnd, endProcessTree(selection, graceMs).catch(() => {})])
    await treeEnd
    await firstEnd(ended, { timeoutMs: givenUpMs })
    given.resolve({ code: null, signal: null, isOutputHeld: true })
    return ended
  }

  return {
    id,
    command,
    timeoutMs,
    get end() {
      return end
    },
    ended,
    get hasNewOutput() {
      return output.hasNew
    },
    takeNewOutput: output.takeNew,
    peekNewOutput: output.peekNew,
    keepOutput() {
      kept ??= keepFile(output, call)
      return kept
    },
    async nextNews(ms, signal) {
      signal.throwIfAborted()
      if (end) return 'ended'
      const news = Promise.withResolvers<'output' | 'ended'>()
      waiting.add(news.resolve)
      const found = await firstEnd(news.promise, { timeoutMs: ms, signal })
      waiting.delete(news.resolve)
      signal.throwIfAborted()
      return found === 'output' || found === 'ended' ? found : 'silence'
    },
    write: process.write,
    closeInput: () => process.closeInput(),
    get pendingInputBytes() {
      return process.pendingInputBytes
    },
    liftTimeLimit: () => clearTimeout(timer),
    stop,
    async dispose() {
      await kept
      await output.dispose()
    },
  }
}

/** The file is not needed after that. */
async function keepFile(output: CommandOutput, call: StartingCall): Promise<string | undefined> {
  const file = output.file()
  const id = file === undefined ? undefined : await call.keepOutput(file).catch(() => undefined)
  await output.dispose().catch(() => {})
  return id
}
