import type { Masker } from '@openoz/machine'
import type { AgentLimits } from '@openoz/protocol'
import type { EventSink } from '../event-sink.ts'
import type { Workspace } from '../workspace/prepare.ts'

/** Where a call of a tool works, and what it may use. */
export interface CallContext {
  workspace: Workspace
  env: NodeJS.ProcessEnv
  limits: AgentLimits
  sink: EventSink
  masker: Masker
  /** Keeps a file and returns its id; undefined when that fails. Without a media type it is text in UTF-8. */
  keepOutput: (file: string, mediaType?: string) => Promise<string | undefined>
  /** For large files that go with this process, or with its task when it is killed. Default: the system's temporary folder. */
  scratchFolder?: string
}
