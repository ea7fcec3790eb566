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
