import type { Repository } from './clone.ts'
import type { CheckoutStart } from './own-changes.ts'

export interface SaveRequest {
  repositories: Repository[]
  /** The workspace. With `found`, what the run made in it outside of its repositories is saved too. */
  folder?: string
  /** Names in the workspace that were there before the run: not its work. */
  found?: string[]
  /** The workspace is a person's folder that is no repository. In the place of `found`. */
  folderStart?: CheckoutStart
  env: NodeJS.ProcessEnv
  /** For everything together; what does not fit is left out and named. */
  maxBytes: number
  signal: AbortSignal
  /** For each git command; five minutes by default. */
  commandTimeoutMs?: number
  /** Stores a file and returns its id. */
  store: (file: string, contentType: string) => Promise<string>
}
