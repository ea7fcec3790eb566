import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { constants } from 'node:os'
import type { Readable } from 'node:stream'
import { endProcessTree, identifyProcess, type ProcessIdentity } from '@openoz/machine'
import { z } from 'zod'
import { drainOutput, firstEnd, killedEnd } from '../child-end.ts'
import { createLiveOutput } from '../live-output.ts'
import { type CommandOutput, createCommandOutput } from './command-output.ts'
import type { Tool, ToolCall, ToolOutput } from './tool.ts'

const input = z.object({
  command: z
    .string()
    .min(1)
    // The kernel takes 128 KiB for one argument.
    .max(100_000, 'is too long; write a script with edit_files and run that')
    .refine((text) => !text.includes('\0'), 'must not hold NUL characters'),
  timeout_ms: z.int().min(1).max(86_400_000).optional(),
})
type Input = z.infer<typeof input>

/** How long a command that was told to stop may take to tidy up. */
const graceMs = 5_000

export const runCommand: Tool<Input> = {
  name: 'run_command',
  kind: 'execute',
  describe: (limits) =>
    `Runs a shell command and returns its exit code and output (stdout and stderr together; the middle of a long output is left out). ` +
    `Every command starts in the same folder, in a shell of its own: use \`cd sub && …\` within one command. There is no terminal and ` +
    `nothing on stdin, so use flags that ask no questions. Ended after timeout_ms (default ${limits.command_timeout_ms}). ` +
    `To keep something running, start it in the background with its output in a file: \`server >server.log 2>&1 &\`.`,
  input,
  title: ({ command }) => shorten(command),
  run: execute,
}

type End = { kind: 'exited'; code: number | null; signal: NodeJS.Signals | null } | { kind: 'timed_out' }

async function execute({ command, timeout_ms }: Input, call: ToolCall): Promise<ToolOutput> {
  const { id, sink, limits, signal } = call
  signal.throwIfAborted()
  await sink.ready(signal)
  const { toolsFolder } = call.workspace
  if (!existsSync(toolsFolder))
    throw new Error(`The folder ${toolsFolder}, which commands start in, does not exist any more.`)
  const timeoutMs = timeout_ms ?? limits.command_timeout_ms
  const live = createLiveOutput((text) => sink.emit({ type: 'terminal_output', data: { toolCallId: id, text } }))
  const masking = call.masker.stream(`output ${id}`)
  const output = await createCommandOutput({ masking, onText: live.push })
  try {
    const child = start(command, call)
    const { end, stillRuns } = await follow(child, { output, timeoutMs, signal })
    output.end()
    live.end()
    signal.throwIfAborted()
    const file = output.file()
    const blobId = file === undefined ? undefined : await call.keepOutput(file)
    return describe(end, { text: output.text(), timeoutMs, stillRuns, blobId })
  } finally {
    await output.dispose()
  }
}

function start(command: string, { workspace, env }: ToolCall): ChildProcess {
  const shell = existsSync('/bin/bash') ? '/bin/bash' : '/bin/sh'
  // One pipe for both, so that what was printed first stands first.
  return spawn(shell, ['-c', `exec 2>&1\n${command}`], {
    cwd: workspace.toolsFolder,
    env,
    detached: true,
    stdio: ['ignore', 'pipe', 'ignore'],
  })
}

async function follow(
  child: ChildProcess,
  { output, timeoutMs, signal }: { output: CommandOutput; timeoutMs: number; signal: AbortSignal },
): Promise<{ end: End; stillRuns: boolean }> {
  const stdout = child.stdout as Readable
  // Known from the start: a process that has ended cannot be identified any more, but what it started can be found through it.
  const root = child.pid === undefined ? undefined : identifyProcess(child.pid)
  const onData = (bytes: Buffer) => output.push(bytes)
  stdout.on('data', onData)
  const exited = new Promise<End>((resolve, reject) => {
    child.once('error', (error) => reject(startFailure(error)))
    child.once('exit', (code, killed) => resolve({ kind: 'exited', code, signal: killed }))
  })
  const end = await firstEnd(exited, { timeoutMs, signal })
  if (end === 'stopped' || end === 'timed_out') {
    await endTree(root)
    await killedEnd(exited)
  }
  const isClosed = await drainOutput([stdout])
  if (!isClosed) child.unref()
  const result: End = end === 'stopped' || end === 'timed_out' ? { kind: 'timed_out' } : end
  return { end: result, stillRuns: !isClosed }
}

async function endTree(root: ProcessIdentity | undefined): Promise<void> {
  if (root) await endProcessTree({ root }, graceMs)
}

function describe(
  end: End,
  { text, timeoutMs, stillRuns, blobId }: { text: string; timeoutMs: number; stillRuns: boolean; blobId?: string },
): ToolOutput {
  const note = stillRuns
    ? { note: 'Something that the command started still runs in the background; its further output is not shown.' }
    : {}
  if (end.kind === 'timed_out') {
    const error = `The command was still running after ${timeoutMs} ms and was ended, with everything that it had started.`
    const about = { status: 'timed_out', error }
    return { result: { ...about, output: text }, shown: about, content: asContent(text), isError: true, blobId }
  }
  const exitCode = end.code ?? 128 + (end.signal ? constants.signals[end.signal] : 0)
  const killed = end.signal ? { signal: end.signal } : {}
  // A command that says no has worked as a tool: what its exit code means is for the model to read.
  const about = { status: 'complete', exit_code: exitCode, ...killed, ...note }
  return { result: { ...about, output: text }, shown: about, content: asContent(text), blobId }
}

function asContent(text: string): ToolOutput['content'] {
  return [{ type: 'content', content: { type: 'text', text } }]
}

function startFailure(error: Error): Error {
  return new Error(`The command could not be started: ${error.message}`)
}

function shorten(command: string): string {
  const [line = ''] = command.trim().split('\n')
  return line.length > 160 || line !== command.trim() ? `${line.slice(0, 160)}…` : line
}
