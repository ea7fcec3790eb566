import { type Command, InvalidArgumentError, Option } from 'commander'
import { run, runConnected, withExamples, withJq } from '../command-context.ts'
import { printJson } from '../output.ts'
import { plainText } from '../plain-text.ts'
import { artifactTypeNames, type ListOptions, listParams, sourceNames, stateNames } from '../run-filters.ts'
import { wholeNumber } from '../whole-number.ts'
import { registerFollowUp, registerFork } from './run-follow-up.ts'
import { registerMessage } from './run-message.ts'
import { registerConversation, registerTranscript } from './run-transcript.ts'

export function registerRun(program: Command): void {
  const group = program.command('run').alias('task').description('list, watch, steer, cancel and collect runs')
  registerList(group)
  registerGet(group)
  registerAttempts(group)
  registerWatch(group)
  registerFollowUp(group)
  registerFork(group)
  registerCancel(group)
  registerWhy(group)
  registerDiff(group)
  registerCheckout(group)
  registerTranscript(group)
  registerConversation(group)
  registerMessage(group)
}

const append = <T>(value: T, previous: T[]): T[] => [...previous, value]

function registerList(group: Command): void {
  const states = Object.keys(stateNames)
  const list = group
    .command('list')
    .description('list runs, the latest first')
    .option('-L, --limit <n>', 'how many', wholeNumber({ from: 1, to: 500 }), 10)
    .addOption(
      new Option('--state <state>', 'may be repeated')
        .choices(states)
        .argParser((value, previous: string[]) => append(checked(value, states), previous))
        .default([], 'all'),
    )
    .addOption(new Option('--source <source>').choices(Object.keys(sourceNames)))
    .addOption(new Option('--execution-location <location>').choices(['local', 'remote']))
    .option('--creator <uid>')
    .option('--environment <id>', 'empty-environment: in none')
    .option('--skill <spec>')
    .option('--schedule <id>')
    .addOption(new Option('--artifact-type <type>', 'that made one of these').choices(Object.keys(artifactTypeNames)))
    .addOption(
      new Option('--metadata <key=value>', 'with this label; may be repeated')
        .argParser((value, previous: string[]) => append(value, previous))
        .default([], 'any'),
    )
    .option('--ancestor-run <id>', 'runs below this one')
    .option('--name <name>', 'the name in the run’s config')
    .option('--model <id>')
    .option('--created-after <time>', 'RFC 3339')
    .option('--created-before <time>', 'RFC 3339')
    .option('--updated-after <time>', 'RFC 3339')
    .option('-q, --query <words>', 'words in title or prompt')
    .addOption(new Option('--sort-by <field>').choices(['updated-at', 'created-at', 'title', 'agent']))
    .addOption(new Option('--sort-order <order>').choices(['asc', 'desc']))
    .option('--cursor <cursor>', 'go on where the last list ended')
    .action(
      runConnected<ListOptions>(async ({ connection, output }, { options }) => {
        const { printRuns } = await import('../run-lists.ts')
        printRuns(output, await connection.client.runs.list(listParams(options)), Date.now())
        return 0
      }),
    )
  withExamples(withJq(list), [
    'oz run list',
    'oz run list --state failed --state error -L 50',
    'oz run list --metadata ticket=SHOP-7 --artifact-type pull-request',
    'oz run list --output-format ndjson',
    "oz run list --jq '.runs[].run_id'",
  ])
}

function checked(value: string, allowed: string[]): string {
  if (allowed.includes(value)) return value
  throw new InvalidArgumentError(`Allowed choices are ${allowed.join(', ')}.`)
}

function registerGet(group: Command): void {
  const get = group
    .command('get')
    .argument('<run-id>')
    .description('show one run')
    .option('--conversation', 'show what was said and done in it instead, turn by turn')
    .action(
      runConnected<{ conversation?: boolean }>(async ({ connection, output }, { args, options }) => {
        const runId = args[0] ?? ''
        if (options.conversation) {
          const { printConversation } = await import('../transcript/conversation-text.ts')
          printConversation(output, await connection.client.runs.conversation(runId))
          return 0
        }
        const found = await connection.client.runs.get(runId)
        const { printRun } = await import('../run-lists.ts')
        const { executions } = output.isJson ? { executions: [] } : await connection.client.runs.executions(runId)
        printRun(output, found, executions)
        return 0
      }),
    )
  withExamples(withJq(get), [
    'oz run get 0198c2f0-…',
    'oz run get 0198c2f0-… --output-format json',
    'oz run get 0198c2f0-… --jq .state',
    'oz run get 0198c2f0-… --conversation',
  ])
}

function registerAttempts(group: Command): void {
  const attempts = group
    .command('attempts')
    .argument('<run-id>')
    .description('list the executions of a run: which worker, how each ended, and why it was tried again')
    .action(
      runConnected(async ({ connection, output }, { args }) => {
        const { executions } = await connection.client.runs.executions(args[0] ?? '')
        const { printAttempts } = await import('../attempts.ts')
        printAttempts(output, executions, Date.now())
        return 0
      }),
    )
  withExamples(withJq(attempts), [
    'oz run attempts 0198c2f0-…',
    "oz run attempts 0198c2f0-… --jq '.[] | select(.failure_reason).message'",
  ])
}

function registerWatch(group: Command): void {
  const watch = group
    .command('watch')
    .argument('<run-id>')
    .description('show a run live, from its beginning until it rests; Ctrl-C stops watching, not the run')
    .option('--since <seq>', 'begin after this event', wholeNumber(), 0)
    .option('--full', 'show long output whole instead of its beginning and end')
    .option('--follow', 'stay after an outcome, for the turns of later follow-ups')
    .action(
      runConnected<{ since: number; full?: boolean; follow?: boolean }>(async (context, { args, options }) => {
        const { watchRun } = await import('../watch/watch-run.ts')
        return watchRun(context, { runId: args[0] ?? '', ...options })
      }),
    )
  withExamples(watch, [
    'oz run watch 0198c2f0-…',
    'oz run watch 0198c2f0-… --since 120 --full',
    'oz run watch 0198c2f0-… --output-format ndjson > log.ndjson',
  ])
  watch.addHelpText(
    'after',
    '\nExit code: 0 when the run succeeded, 1 when it ended otherwise or waits for an answer, 130 after Ctrl-C.',
  )
}

function registerCancel(group: Command): void {
  const cancel = group
    .command('cancel')
    .argument('<run-id>')
    .description('stop a run, whatever it is doing')
    .action(
      runConnected(async ({ connection, output }, { args }) => {
        const runId = args[0] ?? ''
        const { runs } = connection.client
        const { last_event_sequence: since } = await runs.get(runId)
        await runs.cancel(runId)
        const { state } = await runs.get(runId)
        if (output.isJson) {
          printJson(output, { run_id: runId, state })
          return 0
        }
        output.line(
          state === 'CANCELLED' ? `Cancelled run ${runId}.` : `Cancelling run ${runId}; its agent is asked to stop.`,
        )
        // Such as how many messages that waited are dropped with it.
        const { events } = await runs.events(runId, { since })
        for (const event of events) if (event.type === 'notice') output.line(plainText(String(event.data.text)))
        return 0
      }),
    )
  withExamples(cancel, ['oz run cancel 0198c2f0-…'])
}

function registerWhy(group: Command): void {
  const why = group
    .command('why')
    .argument('<run-id>')
    .description('say why a run waits, or why it ended')
    .action(
      runConnected(async ({ connection, output }, { args }) => {
        const answer = await connection.client.runs.why(args[0] ?? '')
        const { printWhy } = await import('../run-lists.ts')
        printWhy(output, answer)
        return 0
      }),
    )
  withExamples(why, ['oz run why 0198c2f0-…'])
}

const attemptText = 'what that attempt had changed (see oz run attempts), where another one was at work already'

function registerDiff(group: Command): void {
  const diff = group
    .command('diff')
    .argument('<run-id>')
    .description('print what a run changed, as last saved')
    .option('--attempt <n>', attemptText, wholeNumber({ from: 1 }))
    .action(
      runConnected<{ attempt?: number }>(async (context, { args, options }) => {
        const { printWorkspaceDiff } = await import('../checkout/workspace-diff.ts')
        return printWorkspaceDiff(context, args[0] ?? '', options.attempt)
      }),
    )
  withExamples(diff, ['oz run diff 0198c2f0-…', 'oz run diff 0198c2f0-… | git apply --check'])
}

function registerCheckout(group: Command): void {
  const checkout = group
    .command('checkout')
    .argument('<run-id>')
    .description('put what a run changed into your clone as a branch; working tree and index stay as they are')
    .option('--repo <path>', 'your clone', '.')
    .option('--branch <name>', 'instead of oz/<run-id>')
    .option('--dir <dir>', 'which repository of the run’s workspace, where it had several that fit')
    .option('--attempt <n>', attemptText, wholeNumber({ from: 1 }))
    .option('--force', 'replace a branch that holds other work')
    .action(
      run<{ repo: string; branch?: string; dir?: string; attempt?: number; force?: boolean }>(
        async (context, { args, options }) => {
          const { checkoutCommand } = await import('../checkout/checkout-command.ts')
          return checkoutCommand(context, { runId: args[0] ?? '', ...options })
        },
      ),
    )
  withExamples(checkout, [
    'oz run checkout 0198c2f0-…',
    'oz run checkout 0198c2f0-… --repo ~/src/shop --branch try-this',
  ])
}
