import type { FollowUpMode } from '@openoz/protocol'
import { type Command, Option } from 'commander'
import { runConnected, withExamples } from '../command-context.ts'

/** As in the protocol, whose schemas need not be loaded for help. */
const modes = ['queue', 'steer', 'interrupt'] as const satisfies readonly FollowUpMode[]

export function registerFollowUp(group: Command): void {
  const command = group
    .command('follow-up')
    .alias('followup')
    .argument('<run-id>')
    .argument('[text]', 'what to say; - or nothing at the end of a pipe reads standard input')
    .description('say something to a run, whether it is at work, waits for an answer or has ended')
    .addOption(new Option('-p, --prompt <text>', 'the text, as oz run fork takes it'))
    .addOption(new Option('--mode <mode>', 'when the agent shall hear it').choices(modes).default('queue'))
    .option('--watch', 'show live what comes of it, as oz run watch does')
    .action(
      runConnected<{ prompt?: string; mode: FollowUpMode; watch?: boolean }>(async (context, { args, options }) => {
        const { followUp, oneText } = await import('../follow-up.ts')
        const { prompt, ...wish } = options
        return followUp(context, { runId: args[0] ?? '', text: oneText(args[1], prompt), ...wish })
      }),
    )
  withExamples(command, [
    'oz run follow-up 0198c2f0-… "Now add a test for it" --watch',
    'oz run follow-up 0198c2f0-… "Use the existing helper" --mode steer',
    'git diff | oz run follow-up 0198c2f0-… -',
  ])
  command.addHelpText(
    'after',
    `
Modes:
  queue      a turn of its own, after those that were asked before it
  steer      said to the turn at work, before its next model request
  interrupt  what runs is stopped, then this
Where no turn is at work all three begin one.`,
  )
}

export function registerFork(group: Command): void {
  const command = group
    .command('fork')
    .argument('<run-id>')
    .argument('[text]', 'what the copy shall do; - or nothing at the end of a pipe reads standard input')
    .description('start a new run with a copy of this one’s conversation and workspace')
    .option('-p, --prompt <text>', 'the text, named')
    .option('--title <title>', 'shown in lists')
    .option('--watch', 'show it live until it rests, as oz run watch does')
    .action(
      runConnected<{ prompt?: string; title?: string; watch?: boolean }>(async (context, { args, options }) => {
        const { forkRun, oneText } = await import('../follow-up.ts')
        return forkRun(context, { runId: args[0] ?? '', ...options, prompt: oneText(args[1], options.prompt) })
      }),
    )
  withExamples(command, ['oz run fork 0198c2f0-… --prompt "Try it with a queue instead" --watch'])
}
