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
    .addOption(new Option('--server-url <url>', 'control plane (OZ_SERVER_URL, or the saved login)'))
    .addOption(new Option('--server-root-url <url>').hideHelp())
    .addOption(
      new Option('--output-format <format>', 'how to print (OZ_OUTPUT_FORMAT)')
        .choices(outputFormats)
        .default(formatFromEnvironment(env)),
    )
    .addOption(new Option('--debug', 'say more on stderr'))
    .configureHelp({ showGlobalOptions: true, sortSubcommands: false })
    .configureOutput({ outputError: (text, write) => write(text) })
    .showHelpAfterError('(--help shows what there is)')
    .exitOverride()
  return program
}

function formatFromEnvironment(env: NodeJS.ProcessEnv): OutputFormat {
  const wanted = env.OZ_OUTPUT_FORMAT || env.WARP_OUTPUT_FORMAT
  return outputFormats.find((format) => format === wanted) ?? 'pretty'
}

export function globalOptions(command: Command): GlobalOptions {
  return command.optsWithGlobals<GlobalOptions>()
}
