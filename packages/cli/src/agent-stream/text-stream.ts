import type { AgentEvent, SessionEvent } from '@openoz/protocol'
import pc from 'picocolors'
import type { Output } from '../output.ts'
import { oneLine } from '../plain-text.ts'
import { createSessionRenderer } from '../watch/session-renderer.ts'
import { type AgentStream, sharesWait } from './agent-stream.ts'

/** For people, and with the lines that scripts look for in it: each of them stands alone. */
export function createTextStream(output: Output, folderName: string): AgentStream {
  const colors = output.format === 'text' ? pc.createColors(false) : output.colors
  const renderer = createSessionRenderer(output.write, { colors, folderName })
  let seq = 0
  const render = ({ type, data }: Pick<SessionEvent, 'type' | 'data'>) => {
    renderer.render({ seq: ++seq, at: new Date().toISOString(), type, data } as SessionEvent)
  }
  return {
    started({ runId, runUrl, conversationId, isShared }) {
      output.line(`Run ID: ${runId}`)
      output.line(`Open in Oz: ${runUrl}`)
      output.line(`New conversation started with debug ID: ${conversationId}`)
      if (!isShared) return
      output.line(`Sharing session at: ${runUrl}`)
      output.note(sharesWait)
    },
    event(event: AgentEvent) {
      // An outcome is what moves the run; to those who watch elsewhere the server says so.
      if (event.type === 'turn_outcome') {
        render({ type: 'run_state', data: { state: event.data.outcome, message: event.data.message } })
      } else if (event.type !== 'checkpoint') render(event as Pick<SessionEvent, 'type' | 'data'>)
    },
    finished({ state, message, conversationId }) {
      if (renderer.summary.state !== state) render({ type: 'run_state', data: { state, message } })
      renderer.end()
      if (state === 'BLOCKED')
        output.line(`Answer it: oz agent run --conversation ${oneLine(conversationId)} --prompt "…"`)
    },
  }
}
