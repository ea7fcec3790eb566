import { type Command, Option } from 'commander'
import { run, runConnected, withExamples } from '../command-context.ts'
import type { AgentRunOptions } from './agent-run.ts'
import type { RunCloudOptions } from './agent-run-cloud.ts'
import { registerSaveWork } from './agent-save-work.ts'
import { passedOn } from './worker-command-line.ts'

export function registerAgent(program: Command): void {
  const group = program.command('agent').description('start agents')
  registerRunCloud(group)
  registerAgentRun(group)
  registerSaveWork(group)
}

const append = (value: string, previous: string[]) => [...previous, value]

function registerRunCloud(group: Command): void {
  const command = group
    .command('run-cloud')
    .alias('ra')
    .alias('run-ambient')
    .description('start a run on one of your workers')
    .requiredOption('-p, --prompt <text>', 'what the agent shall do')
    .option('--host <worker-id>', 'the worker that shall run it (default: any)')
    .option('--model <id>', 'provider/model (default: the server’s; see oz model list)')
    .option('--repo <url>', 'clone this repository into the workspace; may be repeated', append, [])
    .option('--setup-command <command>', 'run this before the agent starts; may be repeated', append, [])
    .option('-n, --name <name>', 'groups runs in lists')
    .option('--title <title>', 'shown in lists')
    .addOption(
      new Option('-f, --file <path>', 'JSON or YAML file with more of the config; flags win').env(
        'WARP_AGENT_CONFIG_FILE',
      ),
    )
    .addOption(new Option('--parent-run-id <run-id>', 'the run that this one belongs to'))
    .addOption(new Option('--team', 'owned by the team').conflicts('personal'))
    .addOption(new Option('--personal', 'owned by you'))
    .option('--watch', 'show it live until it ends, as oz run watch does')
    .action(
      runConnected<RunCloudOptions>(async (context, { options }) => {
        const { runCloud } = await import('./agent-run-cloud.ts')
        return runCloud(context, options)
      }),
    )
  withExamples(command, [
    'oz agent run-cloud -p "Make the failing test pass" --repo https://github.com/acme/shop.git --watch',
    'oz agent run-cloud -p "Update the dependencies" --host build-1 --repo acme/shop --setup-command "npm ci"',
  ])
}

function registerAgentRun(group: Command): void {
  const command = group
    .command('run')
    .alias('r')
    .description('be the agent of a run: what workers start')
    .option('--task-id <uuid>', 'the run that this process works on')
    .option('-C, --cwd <dir>', 'work in this folder')
  for (const [flags, takes] of passedOn) {
    const option = new Option(flags).hideHelp()
    if (takes === 'list') option.argParser<unknown[]>((value, previous) => [...(previous ?? []), value])
    command.addOption(option)
  }
  command.action(
    run<AgentRunOptions>(async ({ options: globals, env }, { options }) => {
      const { agentRun } = await import('./agent-run.ts')
      return agentRun({ globals, options, given: givenOptions(command) }, env)
    }),
  )
  withExamples(command, [
    'OZ_EXECUTION_TOKEN_FILE=token oz agent run --task-id 0198c2f0-… --server-url http://127.0.0.1:4747',
  ])
}

/** Long names of the options that somebody really gave. */
function givenOptions(command: Command): string[] {
  const given = command.options.filter((option) => command.getOptionValueSource(option.attributeName()) === 'cli')
  // `--x` and `--no-x` share a value.
  const isMeant = (option: Option) => command.getOptionValue(option.attributeName()) !== option.negate
  return given.filter(isMeant).map((option) => option.long ?? option.name())
}
