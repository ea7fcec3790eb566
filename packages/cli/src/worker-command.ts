import { type WorkerEvent, type WorkerFlag, type WorkerFlagValues, workerFlags } from '@openoz/worker'
import { Command, Option } from 'commander'
import type { WorkerMessage } from './stack/worker-process.ts'
import { readVersion } from './version.ts'

/** The command line of `oz-agent-worker`, made from the worker's own table of options. */
export function createWorkerCommand(): Command {
  const command = new Command('oz-agent-worker')
    .description('Takes runs from a control plane and works on them on this machine.')
    .version(readVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .showHelpAfterError('(--help shows what there is)')
    .exitOverride()
  for (const flag of workerFlags) command.addOption(workerOption(flag))
  command.addHelpText(
    'after',
    `
Examples:
  $ OZ_API_KEY=wk-… oz-agent-worker --worker-id build-1 --backend direct --server-url https://oz.example.com
  $ oz-agent-worker --config-file worker.yaml

Make a key that can do nothing else: oz api-key create build-1 --scope worker --worker-id build-1 --no-expiration`,
  )
  return command
}

function workerOption({ flag, type, choices, default: fallback, env, description, hidden }: WorkerFlag): Option {
  const notes = [...(env ?? []), ...(fallback === undefined ? [] : [`default: ${fallback}`])]
  const option = new Option(flag, notes.length === 0 ? description : `${description} (${notes.join(', ')})`)
  if (choices) option.choices(choices)
  if (type === 'list') option.argParser<string[]>((value, previous) => [...(previous ?? []), value])
  if (hidden) option.hideHelp()
  return option
}

export function workerFlagValues(command: Command): WorkerFlagValues {
  return command.opts<WorkerFlagValues>()
}

/** What `oz up` wants to know of its worker. */
export function messageOf(event: WorkerEvent): WorkerMessage | undefined {
  if (event.type === 'listening') return { type: 'connected' }
  return event.type === 'disconnected' ? event : undefined
}
