import type { Command, OptionValues } from 'commander'
import { type Connection, connect } from './connection.ts'
import { type GlobalOptions, globalOptions, type OutputFormat } from './global-options.ts'
import { createOutput, type Output, type Stream } from './output.ts'
import { type Progress, showProgress } from './progress.ts'

export interface CommandContext {
  options: GlobalOptions
  output: Output
  env: NodeJS.ProcessEnv
  /** Told what is waited for. */
  progress: Progress
}

/** What a command does; a number is its exit code, nothing means 0. */
type Handler<Options extends OptionValues> = (
  context: CommandContext,
  input: { args: string[]; options: Options },
) => Promise<number | undefined>

/** Fits commander's `action`: `command.action(run(async ({ output }, { args, options }) => …))`. */
export function run<Options extends OptionValues = OptionValues>(handler: Handler<Options>) {
  return async (...parameters: unknown[]): Promise<void> => {
    const command = parameters.at(-1) as Command
    const options = globalOptions(command)
    const args = command.processedArgs.filter((arg) => arg !== undefined) as string[]
    const input = { args, options: command.opts<Options>() }
    const { stdout, env } = process
    // One line at most, on a terminal: whatever is printed takes its place.
    using progress = showProgress(process.stderr)
    const stderr = progress.before(process.stderr)
    const perform = (format: OutputFormat, to: Stream) =>
      handler({ options, output: createOutput(format, { stdout: to, stderr, env }), env, progress }, input)
    const { jq } = input.options
    const exitCode =
      jq === undefined
        ? await perform(options.outputFormat, progress.before(stdout))
        : await throughJq(jq, { format: options.outputFormat, stdout: progress.before(stdout) }, (to) =>
            perform('json', to),
          )
    process.exitCode = exitCode ?? 0
  }
}

/** What a command prints as JSON goes through the program; one that is wrong is refused before the command does anything. */
async function throughJq(
  program: string,
  { format, stdout }: { format: OutputFormat; stdout: Stream },
  perform: (stdout: Stream) => Promise<number | undefined>,
): Promise<number | undefined> {
  const { loadJq } = await import('./jq.ts')
  const jq = await loadJq(program)
  jq.check()
  const parts: string[] = []
  const exitCode = await perform({ write: (text) => parts.push(text) })
  if (parts.length > 0) stdout.write(jq.print(parts.join(''), { isCompact: format === 'ndjson' }))
  return exitCode
}

/** For commands that print one JSON document. */
export function withJq(command: Command): Command {
  return command.option('--jq <filter>', 'print what this jq program makes of the JSON output')
}

/** The same for commands that talk to a control plane; the connection is closed afterwards. */
export function runConnected<Options extends OptionValues = OptionValues>(
  handler: (
    context: CommandContext & { connection: Connection },
    input: { args: string[]; options: Options },
  ) => Promise<number | undefined>,
) {
  return run<Options>(async (context, input) => {
    await using connection = await connect(context.options, context.env)
    context.progress.waitFor(connection.serverUrl)
    return await handler({ ...context, connection }, input)
  })
}

export function withExamples(command: Command, examples: string[]): Command {
  return command.addHelpText('after', `\nExamples:\n${examples.map((example) => `  $ ${example}`).join('\n')}`)
}
