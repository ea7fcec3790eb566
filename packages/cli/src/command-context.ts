import type { Command, OptionValues } from 'commander'
import { type Connection, connect } from './connection.ts'
import { type GlobalOptions, globalOptions } from './global-options.ts'
import { createOutput, type Output } from './output.ts'

export interface CommandContext {
  options: GlobalOptions
  output: Output
  env: NodeJS.ProcessEnv
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
    const streams = { stdout: process.stdout, stderr: process.stderr, env: process.env }
    const context = { options, output: createOutput(options.outputFormat, streams), env: process.env }
    const args = command.processedArgs.filter((arg) => arg !== undefined) as string[]
    process.exitCode = (await handler(context, { args, options: command.opts<Options>() })) ?? 0
  }
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
    return await handler({ ...context, connection }, input)
  })
}

export function withExamples(command: Command, examples: string[]): Command {
  return command.addHelpText('after', `\nExamples:\n${examples.map((example) => `  $ ${example}`).join('\n')}`)
}
