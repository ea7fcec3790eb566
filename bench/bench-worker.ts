import type { TaskAssignment } from '@openoz/protocol'
import { workerProtocolHeader, workerSocketPath } from '@openoz/protocol/schemas'
import WebSocket from 'ws'
import type { BenchControlPlane } from './control-plane.ts'

interface BenchWorkerOptions {
  workerId: string
  /** Default 0: no limit. */
  maxConcurrentTasks?: number
  /** From a connection before this one. */
  running?: { task_id: string; execution_id: string }[]
  onAssignment: (assignment: TaskAssignment) => void
}

/** A worker that claims what it gets and starts nothing. */
export async function connectBenchWorker(
  controlPlane: Pick<BenchControlPlane, 'url' | 'apiKey'>,
  { workerId, maxConcurrentTasks = 0, running = [], onAssignment }: BenchWorkerOptions,
) {
  const url = `${controlPlane.url.replace('http', 'ws')}${workerSocketPath}?worker_id=${workerId}`
  const socket = new WebSocket(url, {
    headers: { authorization: `Bearer ${controlPlane.apiKey}`, [workerProtocolHeader]: '1' },
  })
  let isClosed = false
  const send = (type: string, data: object) => socket.send(JSON.stringify({ type, data }))
  socket.on('message', (text) => {
    const message = JSON.parse(text.toString()) as { type: string; data: TaskAssignment }
    if (message.type !== 'task_assignment') return
    const { task_id, execution_id } = message.data
    onAssignment(message.data)
    send('task_claimed', { task_id, execution_id, worker_id: workerId })
  })
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
  // A server that is killed resets its sockets.
  socket.on('error', () => {})
  // It does not come back: what waits for it then waits for ever, and this says why.
  socket.on('close', (code) => {
    if (!isClosed) console.error(`the server has closed the connection of worker ${workerId} (${code})`)
  })
  send('worker_hello', {
    protocol: 1,
    version: 'bench',
    backend: 'direct',
    platform: 'bench',
    host: 'bench',
    max_concurrent_tasks: maxConcurrentTasks,
    running,
  })
  return {
    /** Nothing is offered to it any more. */
    drain: () => send('worker_status', { active: 0, draining: true }),
    started: ({ task_id, execution_id }: TaskAssignment) =>
      send('task_step', { task_id, execution_id, step: 'start', status: 'completed', duration_ms: 1 }),
    complete: ({ task_id, execution_id }: TaskAssignment) =>
      send('task_completed', { task_id, execution_id, message: '' }),
    close: () => {
      isClosed = true
      socket.close()
    },
  }
}

export type BenchWorker = Awaited<ReturnType<typeof connectBenchWorker>>
