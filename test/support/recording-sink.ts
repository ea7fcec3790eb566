import type { AgentEvent } from '@openoz/protocol'

/** Takes events of the agent where a test has no control plane. */
export function createRecordingSink() {
  const events: AgentEvent[] = []
  return {
    events,
    emit: (event: AgentEvent) => void events.push(event),
    ready: async () => {},
    /** All live output, in one piece. */
    terminal: () => events.map((event) => (event.type === 'terminal_output' ? event.data.text : '')).join(''),
    notices: () => events.flatMap((event) => (event.type === 'notice' ? [event.data.text] : [])),
  }
}
