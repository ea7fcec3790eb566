import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { chmod } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TaskAssignment } from '@openoz/protocol'
import { workerProtocolHeader, workerSocketPath } from '@openoz/protocol/schemas'
import { readServerOptions, startServer } from '@openoz/server'
import pg from 'pg'
import pino from 'pino'
import WebSocket from 'ws'

/** A control plane of its own in this process, on the embedded database, and a raw connection to that database for controls. */
export async function startBenchControlPlane() {
  const folder = mkdtempSync(join(tmpdir(), 'oz-bench-'))
  // As root the database runs as another user, who must be able to pass.
  await chmod(folder, 0o711)
  const dataDir = join(folder, 'data')
  const server = await startServer(readServerOptions({ listen: '127.0.0.1:0', dataDir }, {}), {
    log: pino({ level: 'silent' }),
  })
  const apiKey = readFileSync(server.adminApiKeyFile, 'utf8').trim()
  const password = readFileSync(join(dataDir, 'postgres-password'), 'utf8').trim()
  const database = {
    host: join(dataDir, 'postgres-socket'),
    user: 'openoz',
    password,
    database: 'openoz',
  }
  return {
    url: server.url,
    apiKey,
    database,
    /** For another process. */
    databaseUrl: `postgresql://${database.user}:${password}@${encodeURIComponent(database.host)}/${database.database}`,
    pool: new pg.Pool({ ...database, max: 4 }),
    async post<T>(path: string, body: unknown, token = apiKey): Promise<T> {
      const response = await fetch(server.url + path, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: JSON.stringify(body),
      })
      if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`)
      return (await response.json()) as T
    },
    async stop() {
      await server.stop()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

export type BenchControlPlane = Awaited<ReturnType<typeof startBenchControlPlane>>

/** A worker that claims what it gets and starts nothing. */
export async function connectBenchWorker(
  controlPlane: BenchControlPlane,
  workerId: string,
  onAssignment: (assignment: TaskAssignment) => void,
) {
  const url = `${controlPlane.url.replace('http', 'ws')}${workerSocketPath}?worker_id=${workerId}`
  const socket = new WebSocket(url, {
    headers: { authorization: `Bearer ${controlPlane.apiKey}`, [workerProtocolHeader]: '1' },
  })
  const send = (type: string, data: object) => socket.send(JSON.stringify({ type, data }))
  socket.on('message', (text) => {
    const message = JSON.parse(text.toString()) as { type: string; data: TaskAssignment }
    if (message.type !== 'task_assignment') return
    const { task_id, execution_id } = message.data
    onAssignment(message.data)
    send('task_claimed', { task_id, execution_id, worker_id: workerId })
  })
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
  send('worker_hello', {
    protocol: 1,
    version: 'bench',
    backend: 'direct',
    platform: 'bench',
    host: 'bench',
    max_concurrent_tasks: 0,
    running: [],
  })
  return {
    complete: (assignment: TaskAssignment) =>
      send('task_completed', { task_id: assignment.task_id, execution_id: assignment.execution_id, message: '' }),
    close: () => socket.close(),
  }
}
