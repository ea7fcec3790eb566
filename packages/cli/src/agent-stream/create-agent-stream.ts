import { basename } from 'node:path'
import type { Output } from '../output.ts'
import type { AgentStream } from './agent-stream.ts'
import { createJsonStream } from './json-stream.ts'
import { createTextStream } from './text-stream.ts'

/** `json` and `ndjson`: one object per line, and nothing else on stdout; warnings go to stderr. `text` and `pretty`: for people. */
export function createAgentStream(output: Output, folder: string): AgentStream {
  return output.isJson
    ? createJsonStream((object) => output.line(JSON.stringify(object)), output.note)
    : createTextStream(output, basename(folder))
}
