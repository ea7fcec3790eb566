import type { Command } from 'commander'
import { runConnected, withExamples } from '../command-context.ts'
import { wholeNumber } from '../whole-number.ts'

export function registerMessage(group: Command): void {
  const message = group.command('message').description('send messages from run to run, and read what came for one')
  registerSend(message)
  registerList(message)
  registerRead(message)
  registerMarkDelivered(message)
  registerWatch(message)
}

function registerSend(group: Command): void {
  const send = group
    .command('send')
    .description('send a message from a run to others: to all of them, or to none')
    .requiredOption('--to <run-ids>', 'recipients, with commas between them; may be repeated', addIds)
    .requiredOption('--subject <text>')
    .requiredOption('--body <text>')
    .requiredOption('--sender-run-id <run-id>', 'the run that it is from')
    .action(
      runConnected<{ to: string[]; subject: string; body: string; senderRunId: string }>(
        async (context, { options: { to, subject, body, senderRunId } }) => {
          const { sendMessage } = await import('../run-messages.ts')
          return sendMessage(context, { to, subject, body, sender_run_id: senderRunId })
        },
      ),
    )
  withExamples(send, [
    'oz run message send --sender-run-id 0198c2f0-… --to 0198c2f1-…,0198c2f2-… --subject "Schema" --body "It has changed."',
  ])
  send.addHelpText(
    'after',
    `
It waits in the inbox of each recipient. One whose agent is at work is told it as well, before its next step.`,
  )
}

function addIds(value: string, previous: string[] = []): string[] {
  const ids = value.split(',').map((id) => id.trim())
  return [...previous, ...ids.filter((id) => id !== '')]
}

function registerList(group: Command): void {
  const list = group
    .command('list')
    .argument('<run-id>')
    .description('list what came for a run, the oldest first')
    .option('--unread', 'what nobody has read yet')
    .option('--since <time>', 'sent then or later; RFC 3339')
    .option('-L, --limit <n>', 'how many', wholeNumber({ from: 1, to: 100 }), 50)
    .action(
      runConnected<{ unread?: boolean; since?: string; limit: number }>(
        async (context, { args, options: { unread, since, limit } }) => {
          const { listMessages } = await import('../run-messages.ts')
          return listMessages(context, args[0] ?? '', {
            limit,
            ...(unread ? { unread: 'true' } : {}),
            ...(since === undefined ? {} : { since }),
          })
        },
      ),
    )
  withExamples(list, ['oz run message list 0198c2f0-… --unread', 'oz run message list 0198c2f0-… --output-format json'])
}

/** Both are for the messages of one run where OZ_RUN_ID names it, as it does for an agent. */
const scopeHelp = '\nWhere OZ_RUN_ID is set only messages for that run are found.'

function registerRead(group: Command): void {
  const read = group
    .command('read')
    .argument('<message-id>')
    .description('print a message; from then on it counts as read')
    .action(
      runConnected(async (context, { args }) => {
        const { readMessage } = await import('../run-messages.ts')
        return readMessage(context, args[0] ?? '')
      }),
    )
  withExamples(read, ['oz run message read 0198c2f3-…'])
  read.addHelpText('after', scopeHelp)
}

function registerMarkDelivered(group: Command): void {
  const delivered = group
    .command('mark-delivered')
    .alias('delivered')
    .argument('<message-id>')
    .description('note that a message has reached its run, without reading it')
    .action(
      runConnected(async (context, { args }) => {
        const { markDelivered } = await import('../run-messages.ts')
        return markDelivered(context, args[0] ?? '')
      }),
    )
  withExamples(delivered, ['oz run message mark-delivered 0198c2f3-…'])
  delivered.addHelpText('after', scopeHelp)
}

function registerWatch(group: Command): void {
  const watch = group
    .command('watch')
    .argument('<run-id>')
    .description('print each message for a run as it comes, as a JSON object per line; each counts as read')
    .option('--since-sequence <n>', 'go on behind the sequence of an earlier line', wholeNumber(), 0)
    .action(
      runConnected<{ sinceSequence: number }>(async (context, { args, options }) => {
        const { watchMessages } = await import('../run-messages.ts')
        return watchMessages(context, { runId: args[0] ?? '', since: options.sinceSequence })
      }),
    )
  withExamples(watch, [
    'oz run message watch 0198c2f0-… --output-format ndjson',
    'oz run message watch 0198c2f0-… --since-sequence 120 --output-format ndjson >> inbox.ndjson',
  ])
  watch.addHelpText('after', '\nIt runs until Ctrl-C, and goes on by itself where a connection was cut.')
}
