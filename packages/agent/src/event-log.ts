import { createChunkMerger, type Masker, type Spool } from '@openoz/machine'
import type { AgentEvent } from '@openoz/protocol'
import type { EventSink } from './event-sink.ts'

type Chunk = Extract<AgentEvent, { type: 'agent_message_chunk' | 'agent_thought_chunk' | 'terminal_output' }>

export interface EventLog extends EventSink {
  /** Like `emit`, for what must be said even when the spool is full: an outcome. Throws `spool_full` or `disk_full`. */
  emitFinal(event: AgentEvent): void
  /** Passes on what is still held back for masking and merging. Never throws. */
  flush(): void
}

/** From this part of the spool on producers wait; what they say until they come to `ready` still fits. */
const fullAt = 0.8

/**
 * Masks, merges and numbers. A secret may be cut between two chunks, so each source of chunks (a message, a command's output) has a masking
 * stream, which ends with its source: a message ends when something else is said, a command's output with its tool call or step.
 *
 * A command in the background goes on after its call has ended, and over turns. What it says then is a stream of its own, which nothing but
 * `flush` ends: cut in between, both halves of a secret would get through. Whoever runs it has the last word of it end with a line break.
 */
export function createEventLog(options: {
  spool: Spool
  masker: Masker
  /** Called once, with `spool_full` or `disk_full`: an event was not kept, and no later one will be, but final ones. */
  onFailure: (error: unknown) => void
  /** Told of each event that was kept, as it was kept. */
  onEvent?: (event: AgentEvent) => void
}): EventLog {
  const { spool, masker, onFailure, onEvent } = options
  let isFinal = false
  let hasFailed = false
  const merger = createChunkMerger({
    append: ({ type, at, data }) => {
      spool.append([{ type, at, data }], { isFinal })
      onEvent?.({ type, data } as AgentEvent)
    },
  })
  const open = new Map<string, Chunk>()

  function end(key: string): void {
    const chunk = open.get(key)
    if (!chunk) return
    open.delete(key)
    const rest = masker.stream(key).flush()
    if (rest !== '') merger.add(withText(chunk, rest))
  }

  function addChunk(chunk: Chunk): void {
    const key = sourceOf(chunk)
    for (const other of [...open.keys()]) if (other !== key && isMessage(other)) end(other)
    open.set(key, chunk)
    const text = masker.stream(key).push(textOf(chunk))
    if (text !== '') merger.add(withText(chunk, text))
  }

  function keep(work: () => void): void {
    if (hasFailed) return
    try {
      work()
    } catch (error) {
      hasFailed = true
      onFailure(error)
    }
  }

  function add(event: AgentEvent): void {
    if (isChunk(event)) {
      addChunk(event)
      return
    }
    for (const key of [...open.keys()]) if (isMessage(key) || endsWith(event, key)) end(key)
    merger.add(masker.maskValue(event))
  }

  function flushAll(keys = [...open.keys()]): void {
    for (const key of keys) end(key)
    merger.flush()
  }

  return {
    emit: (event) => keep(() => add(event)),
    flush: () => keep(() => flushAll()),
    emitFinal(event) {
      isFinal = true
      try {
        add(event)
        flushAll([...open.keys()].filter((key) => !isToolOutput(key)))
      } finally {
        // More turns may follow.
        isFinal = false
      }
    },
    async ready(signal) {
      signal.throwIfAborted()
      while (spool.sizeBytes >= spool.maxBytes * fullAt || spool.isTight)
        await spool.waitForAcknowledged(spool.ackedN + 1, signal)
    },
  }
}

function isChunk(event: AgentEvent): event is Chunk {
  return (
    event.type === 'agent_message_chunk' || event.type === 'agent_thought_chunk' || event.type === 'terminal_output'
  )
}

function sourceOf(chunk: Chunk): string {
  if (chunk.type !== 'terminal_output') return `message ${chunk.type} ${chunk.data.messageId}`
  return chunk.data.toolCallId === undefined ? `step ${chunk.data.step}` : `tool ${chunk.data.toolCallId}`
}

function isMessage(key: string): boolean {
  return key.startsWith('message ')
}

function isToolOutput(key: string): boolean {
  return key.startsWith('tool ')
}

function endsWith(event: AgentEvent, key: string): boolean {
  if (event.type === 'setup_step') return event.data.status !== 'started' && key === `step ${event.data.step}`
  if (event.type === 'tool_call_update') {
    return event.data.status !== 'in_progress' && key === `tool ${event.data.toolCallId}`
  }
  return false
}

function textOf(chunk: Chunk): string {
  return chunk.type === 'terminal_output' ? chunk.data.text : chunk.data.content.text
}

function withText(chunk: Chunk, text: string): Chunk {
  if (chunk.type === 'terminal_output') return { ...chunk, data: { ...chunk.data, text } }
  return { ...chunk, data: { ...chunk.data, content: { type: 'text', text } } }
}
