import type { WorkerMessage } from '@openoz/protocol'
import { workerMessage } from '@openoz/protocol/schemas'

/** What a worker's frame says, or why it says nothing. */
export function parseMessage(text: string): WorkerMessage | { problem: string } {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    return { problem: 'the frame is not JSON' }
  }
  const parsed = workerMessage.safeParse(json)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  return { problem: `${issue?.path.join('.') || 'message'}: ${issue?.message ?? 'does not fit'}` }
}

/** What is used of a socket: ws' WebSocket, or `HttpWorkerSocket` where something on the way ends WebSockets. */
export interface WorkerSocket {
  readonly readyState: number
  readonly OPEN: number
  send(text: string): void
  ping(): void
  pong(payload: Buffer): void
  /** Says why, and ends once the other side knows. */
  close(code: number, reason: string): void
  /** Ends at once. */
  terminate(): void
  on(event: 'message', listener: (text: { toString(): string }) => void): unknown
  on(event: 'ping' | 'pong', listener: (payload: Buffer) => void): unknown
  on(event: 'error', listener: (error: Error) => void): unknown
  /** The end, once, whoever wanted it. */
  on(event: 'close', listener: (code: number, reason: Buffer) => void): unknown
}
