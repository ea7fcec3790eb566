import type { AgentEvent } from '@openoz/protocol'

/**
 * Joins what comes in small pieces (words of the model, output of a command) before it is numbered: the server never merges, and one event per
 * token would cost it a row per token. Only neighbours of one kind and one id are joined, so the order is what it was.
 */
export interface ChunkMerger {
  /** Takes an event, or throws what `append` throws for the one before; the event was not taken then and may be added again. */
  add(event: AgentEvent): void
  /** Passes on what is held, now. Throws what `append` throws; what is held stays held then. */
  flush(): void
}

export interface ChunkMergerOptions {
  /** Takes finished events, in order, e.g. into the spool. `at` is the time of the first piece. */
  append: (event: AgentEvent & { at: string }) => void
  /** The longest that a piece is held. */
  windowMs?: number
  /** A text of this many characters is passed on at once. */
  maxLength?: number
}

type Chunk = Extract<AgentEvent, { type: 'agent_message_chunk' | 'agent_thought_chunk' | 'terminal_output' }>

export function createChunkMerger({ append, windowMs = 50, maxLength = 4096 }: ChunkMergerOptions): ChunkMerger {
  let held: (Chunk & { at: string }) | undefined
  let timer: NodeJS.Timeout | undefined

  function flush(): void {
    clearTimeout(timer)
    timer = undefined
    if (!held) return
    append(held)
    held = undefined
  }

  function flushInBackground(): void {
    try {
      flush()
    } catch {
      // A full spool. It stays held, and the next `add` or `flush` meets the same error where someone can act on it.
    }
  }

  function add(event: AgentEvent): void {
    const at = new Date().toISOString()
    if (!isChunk(event)) {
      flush()
      append({ ...event, at })
      return
    }
    if (held && keyOf(held) === keyOf(event) && textOf(held).length < maxLength) {
      held = withText(held, textOf(held) + textOf(event))
    } else {
      flush()
      held = { ...event, at }
    }
    timer ??= setTimeout(flushInBackground, windowMs)
    if (textOf(held).length >= maxLength) flushInBackground()
  }

  return { add, flush }
}

function isChunk(event: AgentEvent): event is Chunk {
  return (
    event.type === 'agent_message_chunk' || event.type === 'agent_thought_chunk' || event.type === 'terminal_output'
  )
}

function keyOf(chunk: Chunk): string {
  if (chunk.type !== 'terminal_output') return `${chunk.type} ${chunk.data.messageId}`
  return `${chunk.type} ${chunk.data.toolCallId ?? ''} ${chunk.data.step ?? ''}`
}

function textOf(chunk: Chunk): string {
  return chunk.type === 'terminal_output' ? chunk.data.text : chunk.data.content.text
}

function withText<T extends Chunk>(chunk: T, text: string): T {
  if (chunk.type === 'terminal_output') return { ...chunk, data: { ...chunk.data, text } }
  return { ...chunk, data: { ...chunk.data, content: { type: 'text', text } } }
}
