import { type WorkerFlag, type WorkerFlagValues, workerFlags } from '@openoz/worker'
import { type Command, Option } from 'commander'

export interface LeaveFlags {
  stop?: boolean
}

export interface JoinActions {
  join: (flags: WorkerFlagValues) => Promise<void>
  setUp: (flags: WorkerFlagValues) => Promise<void>
  leave: (flags: LeaveFlags) => Promise<void>
}

/** What joining decides itself, or what makes no sense for a worker that is to stay. */
const left: readonly (keyof WorkerFlagValues)[] = ['apiKey', 'backend', 'oneShot']

export function registerJoin(
  program: Command,
  { join, setUp, leave }: JoinActions,
  workerOption: (flag: WorkerFlag) => Option,
): void {
  const takeFlags = (command: Command) => {
    command.addOption(
      new Option('--backend <name>', 'what runs tasks; auto: docker where an engine answers, else direct')
        .choices(['auto', 'docker', 'direct'])
        .default('auto'),
    )
    for (const flag of workerFlags.filter(({ name }) => !left.includes(name))) command.addOption(workerOption(flag))
    return command
  }
  takeFlags(
    program
      .command('join')
      .description(
        'make this machine a worker, with the join token in OZ_JOIN_TOKEN; without one, start the worker that it is',
      ),
  )
    .addHelpText(
      'after',
      `
Examples:
  $ OZ_JOIN_TOKEN=jt-… oz-agent-worker join --server-url https://oz.example.com
  $ oz-agent-worker join`,
    )
    .action((flags: WorkerFlagValues) => join(flags))
  takeFlags(program.command('set-up', { hidden: true })).action((flags: WorkerFlagValues) => setUp(flags))
  program
    .command('leave')
    .description('end the worker that has joined, and remove it with its key, its state and the programs of install.sh')
    .option('--stop', 'only stop it; `oz-agent-worker join` starts it again')
    .action((flags: LeaveFlags) => leave(flags))
}
