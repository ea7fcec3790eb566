import { type Command, Option } from 'commander'
import { runConnected, withExamples, withJq } from '../command-context.ts'
import type { DrainOptions } from '../worker-drain.ts'
import { registerInspect } from './worker-inspect.ts'
import { registerJoinToken } from './worker-join-token.ts'

export function registerWorker(program: Command): void {
  const group = program.command('worker').description('list connected workers, and take them out of service')
  registerList(group)
  registerDrain(group)
  registerJoinToken(group)
  registerInspect(group)
}

function registerList(group: Command): void {
  const list = group
    .command('list')
    .description('list the workers that are connected now')
    .action(
      runConnected(async ({ connection, output }) => {
        const { printWorkers } = await import('../worker-lists.ts')
        printWorkers(output, await connection.client.workers.list(), Date.now())
        return 0
      }),
    )
  withExamples(withJq(list), ['oz worker list', 'oz worker list --output-format ndjson'])
}

function registerDrain(group: Command): void {
  const drain = group
    .command('drain')
    .argument('<worker-id>')
    .description('offer nothing new to a worker id, whoever connects under it; what runs there goes on')
    .option('--wait', 'return once nothing runs there any more')
    .addOption(new Option('--off', 'let it take runs again').conflicts('wait'))
    .action(
      runConnected<DrainOptions>(async (context, { args, options }) => {
        const { drainWorker } = await import('../worker-drain.ts')
        return drainWorker(context, args[0] ?? '', options)
      }),
    )
  withExamples(drain, [
    'oz worker drain build-1',
    'oz worker drain build-1 --wait && ssh build-1 sudo reboot',
    'oz worker drain build-1 --off',
  ])
  drain.addHelpText(
    'after',
    '\nIt holds until --off, over restarts of the worker and of the server. `oz worker list` shows it.',
  )
}
