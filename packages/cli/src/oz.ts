import { restoreImageVariables } from '@openoz/machine'
import type { Command } from 'commander'
import type { AgentRunInput } from './commands/agent-run.ts'
import { readWorkerCommandLine } from './commands/worker-command-line.ts'
import type { OutputFormat } from './global-options.ts'
import { reportError } from './output.ts'
import { topCommands } from './top-commands.ts'

export async function main(args: string[]): Promise<void> {
  endQuietlyWithoutReader()
  hideSecrets(args)
  restoreImageVariables(process.env)
  const forAgent = readWorkerCommandLine(args)
  if (forAgent) return beAgent(forAgent)
  const { createProgram } = await import('./global-options.ts')
  const program = createProgram(process.env)
  try {
    await registerCommands(program, wantedCommand(args))
    if (args.length === 0) program.outputHelp()
    else await program.parseAsync(args, { from: 'user' })
  } catch (error) {
    const { outputFormat, debug } = program.opts<{ outputFormat: OutputFormat; debug?: boolean }>()
    const streams = { stderr: process.stderr, env: process.env }
    process.exitCode = reportError(error, { format: outputFormat, debug: debug ?? false, ...streams })
  }
}

/** What the command `agent run` does, on the short way. */
async function beAgent(input: AgentRunInput): Promise<void> {
  const { env, stderr } = process
  try {
    const { agentRun } = await import('./commands/agent-run.ts')
    process.exitCode = await agentRun(input, env)
  } catch (error) {
    process.exitCode = reportError(error, { format: 'pretty', debug: input.globals.debug ?? false, stderr, env })
  }
}

async function registerCommands(program: Command, wanted: string | undefined): Promise<void> {
  for (const { name, alias, summary, register } of topCommands) {
    if (wanted === name || (alias !== undefined && wanted === alias)) {
      await register(program)
      continue
    }
    const placeholder = program.command(name).description(summary)
    if (alias !== undefined) placeholder.alias(alias)
  }
}

/** Command lines can be read by everybody on the machine, tasks included: this overwrites ours when it holds a key or a password. */
function hideSecrets(args: string[]): void {
  if (args.some((arg) => /^--(api-key|database-url)\b/.test(arg))) process.title = 'oz'
}

const globalOptionsWithValue = new Set(['--api-key', '--server-url', '--server-root-url', '--output-format'])

/** The first word that is neither an option nor an option's value; after `help`, the one behind it. */
function wantedCommand(args: string[]): string | undefined {
  for (let at = 0; at < args.length; at++) {
    const arg = args[at] ?? ''
    if (globalOptionsWithValue.has(arg)) at++
    else if (!arg.startsWith('-') && arg !== 'help') return arg
  }
  return undefined
}

/** `oz run list | head` ends the reader first. That is no error. */
function endQuietlyWithoutReader(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0)
    throw error
  })
}
