import type { ListWorkersResponse, Worker } from '@openoz/protocol'
import type { Output } from './output.ts'
import { oneLine } from './plain-text.ts'
import { type Column, printList } from './table.ts'
import { ageText } from './time-text.ts'

/** JSON is one object per connection; ids that are drained while nobody has them are for people, who would else look for them in vain. */
export function printWorkers(output: Output, { workers, drains }: ListWorkersResponse, now: number): void {
  printList(output, {
    rows: workers,
    columns: columns(now),
    empty: 'No worker is connected. Start one with `oz up`, or `oz-agent-worker --worker-id NAME --backend direct`.',
  })
  if (output.isJson) return
  const connected = new Set(workers.map(({ worker_id }) => worker_id))
  for (const { worker_id, ...drain } of drains.filter((one) => !connected.has(one.worker_id)))
    output.note(`${oneLine(worker_id)} is drained (${drainText(drain, now)}), and not connected.`)
}

function columns(now: number): Column<Worker>[] {
  return [
    { title: 'worker', value: (row) => row.worker_id, cutTo: 12 },
    { title: 'state', value: (row) => (row.draining ? 'draining' : 'ready') },
    { title: 'drained by', value: ({ drain }) => (drain === null ? '' : drainText(drain, now)), dropOrder: 1 },
    {
      title: 'tasks',
      value: (row) =>
        row.max_concurrent_tasks === 0 ? `${row.active}` : `${row.active} of ${row.max_concurrent_tasks}`,
    },
    { title: 'backend', value: (row) => row.backend },
    { title: 'host', value: (row) => row.host, dropOrder: 2 },
    { title: 'platform', value: (row) => row.platform, dropOrder: 3 },
    { title: 'version', value: (row) => row.version, dropOrder: 4 },
    { title: 'channel', value: (row) => row.channel, dropOrder: 6 },
    { title: 'connected', value: (row) => ageText(row.connected_at, now), dropOrder: 5 },
  ]
}

/** Who, and since when. A worker that is being stopped drains without anybody's wish. */
export function drainText(drain: NonNullable<Worker['drain']>, now: number): string {
  return `${oneLine(drain.requested_by)}, ${ageText(drain.requested_at, now)}`
}
