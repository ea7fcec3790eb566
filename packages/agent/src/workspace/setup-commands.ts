import { AppError } from '@openoz/protocol'
import type { EventSink } from '../event-sink.ts'
import { createLiveOutput, createOutputDecoder } from '../live-output.ts'
import { setupStep } from '../setup-step.ts'
import { type SetupShell, startSetupShell } from './setup-shell.ts'

interface SetupRequest {
  commands: string[]
  folder: string
  env: NodeJS.ProcessEnv
  timeoutMs: number
  signal: AbortSignal
  sink: EventSink
}

/**
 * Runs the environment's setup commands in order, each as a visible step, and resolves with the environment that they left. The first that
 * fails, hangs or ends the shell ends the run: rejects with `setup_command_failed`, `setup_command_timeout` or `setup_command_exited_shell`; with
 * `shell_missing` or `setup_shell_missing` where there is none to run them.
 */
export async function runSetupCommands(request: SetupRequest): Promise<NodeJS.ProcessEnv> {
  const { commands, folder, env, signal, sink } = request
  if (commands.length === 0) return env
  const emit = (text: string) => sink.emit({ type: 'terminal_output', data: { step: 'setup_command', text } })
  const decoder = createOutputDecoder()
  let output = createLiveOutput(emit)
  const onOutput = (bytes: Buffer) => output.push(decoder.push(bytes))
  const shell = await openShell(request, () => startSetupShell({ folder, env, onOutput }))
  try {
    for (const [index, command] of commands.entries()) {
      output = createLiveOutput(emit)
      await sink.ready(signal)
      await setupStep(sink, { step: 'setup_command', title: shorten(command) }, async () => {
        try {
          await runOne(shell, request, { command, number: index + 1 })
        } finally {
          output.push(decoder.end())
          output.end()
        }
      })
    }
    return (await shell.environment(signal)) ?? env
  } finally {
    await shell.close()
  }
}

/** Without a shell it is the first command that fails, for whoever looks at the steps of the run. */
function openShell(
  { commands: [first = ''], sink }: SetupRequest,
  open: () => SetupShell,
): Promise<SetupShell> | SetupShell {
  try {
    return open()
  } catch (error) {
    return setupStep(sink, { step: 'setup_command', title: shorten(first) }, () => Promise.reject(error))
  }
}

async function runOne(
  shell: SetupShell,
  { timeoutMs, signal }: SetupRequest,
  { command, number }: { command: string; number: number },
): Promise<void> {
  const result = await shell.run(command, { timeoutMs, signal })
  const details = { number, command: shorten(command) }
  switch (result.kind) {
    case 'timed_out':
      throw new AppError('setup_command_timeout', { ...details, timeout: `${timeoutMs / 1000} s` })
    case 'shell_ended':
      throw new AppError('setup_command_exited_shell', details)
    case 'exited':
      if (result.exitCode === 0) return
      throw new AppError('setup_command_failed', { ...details, exitCode: result.exitCode })
    default:
      return result satisfies never
  }
}

function shorten(command: string): string {
  const line = command.trim().split('\n')[0] ?? ''
  return line.length > 200 || line !== command.trim() ? `${line.slice(0, 200)}…` : line
}
