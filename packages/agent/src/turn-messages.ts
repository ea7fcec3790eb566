import type { TurnInput, TurnMessage } from '@openoz/protocol'
import type { HarnessSession } from './harnesses/harness.ts'

/**
 * What people say to the turn at work, on its way from the command inbox to the harness.
 *
 *   before the turn is known here    kept for it: a message may overtake the answer that brings its turn
 *   while the workspace is prepared  becomes part of the turn's input
 *   while the harness is prompted    handed over at once
 *   once the turn has ended          dropped: the control plane makes a turn of what no outcome named as taken
 *
 * The same message can come with the turn's input and as a command; it is passed on once.
 */
export interface TurnMessages {
  begin(turn: TurnInput): void
  /** Answers the input with all that was said so far. The session must be prompted with it at once: what follows goes to it directly. */
  handOver(session: Listener): TurnInput
  end(): void
  take(message: TurnMessage & { turn_id: string }): void
}

type Listener = Pick<HarnessSession, 'steer' | 'interrupt'>

export function createTurnMessages(): TurnMessages {
  const early = new Map<string, TurnMessage[]>()
  const ended = new Set<string>()
  let current: { turn: TurnInput; known: Set<string>; listener: Listener | undefined } | undefined

  function pass(message: TurnMessage): void {
    if (!current || current.known.has(message.message_id)) return
    current.known.add(message.message_id)
    const { turn, listener } = current
    if (!listener) turn.messages.push(message)
    else if (message.mode === 'interrupt') listener.interrupt(message)
    else listener.steer(message)
  }

  return {
    begin(turn) {
      const known = new Set(turn.messages.map(({ message_id }) => message_id))
      current = { turn: { ...turn, messages: [...turn.messages] }, known, listener: undefined }
      for (const message of early.get(turn.turn_id) ?? []) pass(message)
      early.delete(turn.turn_id)
    },
    handOver(listener) {
      if (!current) throw new Error('no turn is at work')
      current.listener = listener
      return current.turn
    },
    end() {
      if (current) ended.add(current.turn.turn_id)
      current = undefined
    },
    take({ turn_id: turnId, message_id, mode, text }) {
      const message = { message_id, mode, text }
      if (current?.turn.turn_id === turnId) pass(message)
      else if (!ended.has(turnId)) early.set(turnId, [...(early.get(turnId) ?? []), message])
    },
  }
}
