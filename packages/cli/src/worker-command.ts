import { type WorkerEvent, type WorkerFlag, type WorkerFlagValues, workerFlags } from '@openoz/worker'
import { Command, Option } from 'commander'
import { type JoinActions, registerJoin } from './join/join-commands.ts'
import type { ServiceFlags } from './service/worker-service.ts'
import type { WorkerMessage } from './stack/worker-process.ts'
import { readVersion } from './version.ts'

interface WorkerActions extends JoinActions {
  work: (flags: WorkerFlagValues) => Promise<void>
  install: (flags: WorkerFlagValues & ServiceFlags) => Promise<void>
  uninstall: (flags: ServiceFlags) => Promise<void>
}

/** The command line of `oz-agent-worker`, made from the worker's own table of options. */
export function createWorkerCommand({ work, install, uninstall, ...joining }: WorkerActions): Command {
  const command = new Command('oz-agent-worker')
    .description('Takes runs from a control plane and works on them on this machine.')
    .version(readVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .showHelpAfterError('(--help shows what there is)')
    // Else flags behind `install` would be taken as the worker's own.
    .enablePositionalOptions()
    .exitOverride()
    .action((flags: WorkerFlagValues) => work(flags))
  for (const flag of workerFlags) command.addOption(workerOption(flag))
  registerInstall(command).action((flags: WorkerFlagValues & ServiceFlags) => install(flags))
  command
    .command('uninstall')
    .description('stop the systemd service and remove its files; the state of the worker stays')
    .option('--user', 'the service of this user')
    .action((flags: ServiceFlags) => uninstall(flags))
  registerJoin(command, joining, workerOption)
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

function registerInstall(program: Command): Command {
  const command = program
    .command('install')
    .description('keep a worker with these flags running as a systemd service; the key goes into a file of mode 0600')
    .option('--user', 'a service of this user instead of the machine')
    .option('--print', 'show the files instead of writing them')
  for (const flag of workerFlags) command.addOption(workerOption(flag))
  return command.addHelpText(
    'after',
    `
Examples:
  $ OZ_API_KEY=wk-… oz-agent-worker install --worker-id build-1 --backend direct --server-url https://oz.example.com
  $ oz-agent-worker install --user --print --config-file worker.yaml`,
  )
}

function workerOption({ flag, type, choices, default: fallback, env, description, hidden }: WorkerFlag): Option {
  const notes = [...(env ?? []), ...(fallback === undefined ? [] : [`default: ${fallback}`])]
  const option = new Option(flag, notes.length === 0 ? description : `${description} (${notes.join(', ')})`)
  if (choices) option.choices(choices)
  if (type === 'list') option.argParser<string[]>((value, previous) => [...(previous ?? []), value])
  if (hidden) option.hideHelp()
  return option
}

/** What whoever started it wants to know of a worker. */
export function messageOf(event: WorkerEvent): WorkerMessage | undefined {
  if (event.type === 'listening') return { type: 'connected' }
  return event.type === 'disconnected' ? event : undefined
}
