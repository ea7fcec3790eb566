import { type Command, Help, Option } from 'commander'
import { run, runConnected, withExamples } from '../command-context.ts'
import { positiveNumber } from '../positive-number.ts'
import { wholeNumber } from '../whole-number.ts'
import type { AgentRunOptions } from './agent-run.ts'
import type { RunCloudOptions } from './agent-run-cloud.ts'
import { type AgentRunFlag, agentRunFlags } from './agent-run-flags.ts'
import { registerSaveWork } from './agent-save-work.ts'
import type { LocalRunOptions } from './local-run-wish.ts'

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
    .option('--vcpus <n>', 'CPUs of its container, with --memory-gb (default: all)', positiveNumber({ to: 1024 }))
    .option('--memory-gb <n>', 'GiB of memory of its container', positiveNumber({ to: 65_536 }))
    .option('--setup-command <command>', 'run this before the agent starts; may be repeated', append, [])
    .addOption(
      new Option('-e, --environment <id>', 'work in this environment; see oz environment list').conflicts([
        'repo',
        'setupCommand',
      ]),
    )
    .option('--no-environment', 'in none: neither the file’s nor the continued conversation’s')
    .option('-n, --name <name>', 'groups runs in lists')
    .option('--title <title>', 'shown in lists')
    .option('--attach <path>', 'give the agent this file, of at most 10 MB; may be repeated', append, [])
    .option('--metadata <key=value>', 'a label of your own, for lists and scripts; may be repeated', append, [])
    .addOption(
      new Option('-f, --file <path>', 'JSON or YAML file with more of the config; flags win').env(
        'WARP_AGENT_CONFIG_FILE',
      ),
    )
    .option('--conversation <id>', 'continue this conversation, with its workspace; oz run get shows the id')
    .addOption(new Option('--parent-run-id <run-id>', 'the run that this one belongs to'))
    .addOption(new Option('--team', 'owned by the team').conflicts('personal'))
    .addOption(new Option('--personal', 'owned by you'))
    .option(
      '--max-attempts <n>',
      'try one turn so often at most, whatever fails (default: as each failure’s reason says); 1: never again',
      wholeNumber({ from: 1, to: 10 }),
    )
    .option('--watch', 'show it live until it ends, as oz run watch does')
    .action(
      runConnected<RunCloudOptions>(async (context, { options }) => {
        const { runCloud } = await import('./agent-run-cloud.ts')
        return runCloud(context, options)
      }),
    )
  refuseTogether(command, '--environment', '--no-environment')
  withExamples(command, [
    'oz agent run-cloud -p "Make the failing test pass" --environment 0198c2f0-… --watch',
    'oz agent run-cloud -p "Make the failing test pass" --repo https://github.com/acme/shop.git --watch',
    'oz agent run-cloud -p "Update the dependencies" --host build-1 --repo acme/shop --setup-command "cd shop && npm ci"',
    'oz agent run-cloud -p "Now add a test for it" --conversation 0198c2f0-…',
    'oz agent run-cloud -p "/plan Make the page look like this" --repo acme/shop --attach design.png --metadata ticket=SHOP-7',
  ])
}

/** A flag and its `no-` are one option to commander, of which the last one given would count. */
function refuseTogether(command: Command, ...flags: [string, string]): void {
  const given = new Set<string>()
  for (const flag of flags) {
    command.on(`option:${flag.slice(2)}`, () => {
      if (given.add(flag).size < flags.length) return
      const message = `error: option '${flags[0]}' cannot be used with option '${flags[1]}'`
      command.error(message, { code: 'commander.conflictingOption', exitCode: 2 })
    })
  }
}

function registerAgentRun(group: Command): void {
  const command = group
    .command('run')
    .alias('r')
    .description('perform a run here, in this folder of this machine, and show it')
  for (const flag of agentRunFlags) command.addOption(agentRunOption(flag))
  command.configureHelp({ ...command.configureHelp(), optionDescription: descriptionWithoutPreset })
  command.action(
    run<AgentRunOptions & LocalRunOptions>(async (context, { options }) => {
      const given = givenOptions(command)
      if (options.taskId !== undefined) {
        const { agentRun } = await import('./agent-run.ts')
        return agentRun({ globals: context.options, options, given }, context.env)
      }
      const { agentRunLocal } = await import('./agent-run-local.ts')
      return agentRunLocal(context, { options, given })
    }),
  )
  withExamples(command, [
    'oz agent run --prompt "Make the failing test pass" --share team',
    'oz agent run -p "Review the last commit" --output-format ndjson | jq -r \'select(.type == "agent").text\'',
    'cat task.md | oz agent run --prompt - --cwd packages/shop --model anthropic/claude-sonnet-4-6',
  ])
}

/** What a flag means without its value is in its words, where it can be said. */
function descriptionWithoutPreset(this: Help, option: Option): string {
  return option.presetArg === undefined ? Help.prototype.optionDescription.call(this, option) : option.description
}

function agentRunOption({ flags, help, isList, preset }: AgentRunFlag): Option {
  const option = new Option(flags, help)
  if (help === undefined) option.hideHelp()
  if (isList) option.argParser<string[]>((value, previous) => [...(previous ?? []), value])
  // A flag that may go without its value must still count as given once more.
  if (preset !== undefined) option.preset(preset)
  return option
}

/** Long names of the options that somebody really gave. */
function givenOptions(command: Command): string[] {
  const given = command.options.filter((option) => command.getOptionValueSource(option.attributeName()) === 'cli')
  // `--x` and `--no-x` share a value.
  const isMeant = (option: Option) => command.getOptionValue(option.attributeName()) !== option.negate
  return given.filter(isMeant).map((option) => option.long ?? option.name())
}
