import type { TurnMessage } from '@openoz/protocol'

/**
 * What people have said to the turn at work and its model has not been given. Open while a turn is at work; what comes when it is closed is left
 * to the control plane, which makes a turn of it.
 */
export interface MessageInbox {
  open(messages: readonly TurnMessage[], takenIds: readonly string[]): void
  /** Whether it was new and this turn will take it. */
  put(message: TurnMessage): boolean
  /** Everything that waits, in order. */
  takeAll(): TurnMessage[]
  close(): void
}

export function createMessageInbox(): MessageInbox {
  let isOpen = false
  let known = new Set<string>()
  let waiting: TurnMessage[] = []

  function put(message: TurnMessage): boolean {
    if (!isOpen || known.has(message.message_id)) return false
    known.add(message.message_id)
    waiting.push(message)
    return true
  }

  return {
    open(messages, takenIds) {
      isOpen = true
      known = new Set(takenIds)
      waiting = []
      for (const message of messages) put(message)
    },
    put,
    takeAll() {
      const taken = waiting
      waiting = []
      return taken
    },
    close() {
      isOpen = false
    },
  }
}
