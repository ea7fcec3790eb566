import type { Worker } from '@openoz/protocol'
import type { Command } from 'commander'
import { runConnected, withExamples, withJq } from '../command-context.ts'
import { type Column, printList } from '../table.ts'
import { ageText } from '../time-text.ts'

export function registerWorker(program: Command): void {
  const group = program.command('worker').description('list connected workers')
  const list = group
    .command('list')
    .description('list the workers that are connected now')
    .action(
      runConnected(async ({ connection, output }) => {
        const { workers } = await connection.client.workers.list()
        printList(output, {
          rows: workers,
          columns: columns(Date.now()),
          empty:
            'No worker is connected. Start one with `oz up`, or `oz-agent-worker --worker-id NAME --backend direct`.',
        })
        return 0
      }),
    )
  withExamples(withJq(list), ['oz worker list', 'oz worker list --output-format ndjson'])
}

function columns(now: number): Column<Worker>[] {
  return [
    { title: 'worker', value: (row) => row.worker_id, cutTo: 12 },
    { title: 'state', value: (row) => (row.draining ? 'draining' : 'ready') },
    {
      title: 'tasks',
      value: (row) =>
        row.max_concurrent_tasks === 0 ? `${row.active}` : `${row.active} of ${row.max_concurrent_tasks}`,
    },
    { title: 'backend', value: (row) => row.backend },
    { title: 'host', value: (row) => row.host, dropOrder: 1 },
    { title: 'platform', value: (row) => row.platform, dropOrder: 2 },
    { title: 'version', value: (row) => row.version, dropOrder: 3 },
    { title: 'connected', value: (row) => ageText(row.connected_at, now), dropOrder: 4 },
  ]
}
