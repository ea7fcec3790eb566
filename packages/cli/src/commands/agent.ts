import { type Command, Option } from 'commander'
import { run, runConnected, withExamples } from '../command-context.ts'
import type { AgentRunOptions } from './agent-run.ts'
import type { RunCloudOptions } from './agent-run-cloud.ts'

export function registerAgent(program: Command): void {
  const group = program.command('agent').description('start agents')
  registerRunCloud(group)
  registerAgentRun(group)
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

/** Of the reference's command line, what workers pass: taken, so that any worker can start this program, and noted in the log. */
const passedOn: [flags: string, takes?: 'list'][] = [
  ['--share [recipient]', 'list'],
  ['--sandboxed'],
  ['--model <id>'],
  ['--profile <id>'],
  ['--skill <spec>'],
  ['--mcp <spec>', 'list'],
  ['--mcp-server <uuid>', 'list'],
  ['--strict-mcp-startup'],
  ['--mcp-startup-timeout <duration>'],
  ['--computer-use'],
  ['--no-computer-use'],
  ['--bedrock-inference-role <arn>'],
  ['--bedrock-role-region <region>'],
  ['--harness <harness>'],
  ['--no-snapshot'],
  ['--snapshot-upload-timeout <duration>'],
  ['--snapshot-script-timeout <duration>'],
  ['-e, --environment <id>'],
  ['--conversation <id>'],
  ['--idle-on-complete [duration]'],
  ['--idle-on-fail [duration]'],
  ['--skip-initial-turn'],
  ['--configure-git-credentials-with-github'],
  ['--repository-head-override-json <json>', 'list'],
  ['--remove-repository-origins'],
  ['--session-sharing-server-url <url>'],
  ['--ws-server-url <url>'],
]

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
    run<AgentRunOptions>(async (context, { options }) => {
      const { agentRun } = await import('./agent-run.ts')
      return agentRun(context, { options, given: givenOptions(command) })
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
