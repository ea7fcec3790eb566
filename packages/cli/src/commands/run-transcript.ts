import { type Command, Option } from 'commander'
import { runConnected, withExamples } from '../command-context.ts'

export function registerTranscript(group: Command): void {
  const command = group
    .command('transcript')
    .argument('<run-id>')
    .description('print or save everything that was said and done in a run')
    .addOption(
      new Option(
        '--format <format>',
        'json: every event; markdown: a document to read (default: markdown, json with a JSON --output-format)',
      ).choices(['json', 'markdown']),
    )
    .option('-o, --out <file>', 'write it there instead of printing it')
    .option('--full', 'in markdown, long output whole instead of its beginning and end')
    .action(
      runConnected<{ format?: 'json' | 'markdown'; out?: string; full?: boolean }>(
        async (context, { args, options }) => {
          const { transcript } = await import('../transcript/transcript.ts')
          return transcript(context, { runId: args[0] ?? '', ...options })
        },
      ),
    )
  withExamples(command, [
    'oz run transcript 0198c2f0-… --out run.md',
    'oz run transcript 0198c2f0-… --format json | jq ".events[].type"',
  ])
}

export function registerConversation(group: Command): void {
  const conversation = group.command('conversation').description('read conversations, over all runs that continue one')
  const command = conversation
    .command('get')
    .argument('<conversation-id>')
    .description('print a conversation as JSON, a step per turn')
    .action(
      runConnected(async ({ connection, output }, { args }) => {
        const found = await connection.client.conversations.get(args[0] ?? '')
        output.line(JSON.stringify(found, null, output.format === 'ndjson' ? undefined : 2))
        return 0
      }),
    )
  withExamples(command, ['oz run conversation get 0198c2f0-… > conversation.json'])
}
