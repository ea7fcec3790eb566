import { Command, Option } from 'commander'
import { readVersion } from './version.ts'

export const outputFormats = ['pretty', 'text', 'json', 'ndjson'] as const
export type OutputFormat = (typeof outputFormats)[number]

export interface GlobalOptions {
  apiKey?: string
  serverUrl?: string
  /** What the reference calls `--server-url`; the worker passes it to agents. */
  serverRootUrl?: string
  outputFormat: OutputFormat
  debug?: boolean
}

export function createProgram(env: NodeJS.ProcessEnv): Command {
  const program = new Command('oz')
    .description('Coding agents on machines that you own.')
    .version(readVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .addOption(new Option('--api-key <key>', 'key to act with (OZ_API_KEY, WARP_API_KEY, or the saved login)'))
    .addOption(
      new Option('--server-url <url>', 'control plane (OZ_SERVER_URL, WARP_SERVER_ROOT_URL, or the saved login)'),
    )
    .addOption(new Option('--server-root-url <url>').hideHelp())
    .addOption(outputFormatOption(env))
    .addOption(new Option('--debug', 'say more on stderr'))
    // Long options leave little room on a narrow terminal; below 24 characters the text beside them is not wrapped.
    .configureHelp({ showGlobalOptions: true, sortSubcommands: false, minWidthToWrap: 24 })
    .configureOutput({ outputError: (text, write) => write(text) })
    .showHelpAfterError('(--help shows what there is)')
    .exitOverride()
  return program
}

/** The variable is named to the library only when it says something, so that an empty one is none, and a wrong one is refused by its name. */
function outputFormatOption(env: NodeJS.ProcessEnv): Option {
  const option = new Option('--output-format <format>', 'how to print (OZ_OUTPUT_FORMAT, WARP_OUTPUT_FORMAT)')
    .choices(outputFormats)
    .default('pretty')
  const variable = ['OZ_OUTPUT_FORMAT', 'WARP_OUTPUT_FORMAT'].find((name) => env[name])
  return variable === undefined ? option : option.env(variable)
}

export function globalOptions(command: Command): GlobalOptions {
  return command.optsWithGlobals<GlobalOptions>()
}
