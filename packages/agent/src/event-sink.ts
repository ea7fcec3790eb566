import type { AgentEvent } from '@openoz/protocol'

/** Where everything that happens in an execution is said. */
export interface EventSink {
  /**
   * Masked, merged, numbered, and kept on disk until the control plane has it. Never throws, so that it can be called from anywhere: when an
   * event cannot be kept the execution is stopped.
   */
  emit(event: AgentEvent): void
  /** Resolves when there is room for more: whoever produces much waits here. Rejects with the signal's reason. */
  ready(signal: AbortSignal): Promise<void>
}

/** A sentence of ours to the reader of the run. */
export function notice(sink: EventSink, level: 'info' | 'warning', text: string): void {
  sink.emit({ type: 'notice', data: { level, text } })
}
