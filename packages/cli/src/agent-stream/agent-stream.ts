import { basename } from 'node:path'
import type { AgentEvent } from '@openoz/protocol'
import type { Output } from '../output.ts'
import { createJsonStream } from './json-stream.ts'
import { createTextStream } from './text-stream.ts'

/**
 * What `oz agent run` prints of a run while it works. It is made of the agent's own events, as they are kept for the control plane (masked and
 * merged), so that it goes on while the control plane is away.
 */
export interface AgentStream {
  started(run: StartedRun): void
  event(event: AgentEvent): void
  finished(end: RunEnd): void
}

export interface StartedRun {
  runId: string
  runUrl: string
  conversationId: string
  /** Somebody was given access with `--share`. */
  isShared: boolean
}

export interface RunEnd {
  runId: string
  conversationId: string
  state: string
  message: string
}

/** `json` and `ndjson`: one object per line, and nothing else on stdout; warnings go to stderr. `text` and `pretty`: for people. */
export function createAgentStream(output: Output, folder: string): AgentStream {
  return output.isJson
    ? createJsonStream((object) => output.line(JSON.stringify(object)), output.note)
    : createTextStream(output, basename(folder))
}
