import type { Dialer } from '@openoz/machine'
import { createApiClient } from '@openoz/protocol'
import type { RunWorkerOptions } from './worker-options.ts'

/** Runs of another team never come to a worker, and a control plane does not say so to that team: a line of the log shows whose they are. */
export interface TeamNotice {
  /** Once; never rejects. */
  tell(): Promise<void>
}

export function createTeamNotice({ apiKey, workerId, log }: RunWorkerOptions, { fetch }: Dialer): TeamNotice {
  let isTold = false
  return {
    async tell() {
      if (isTold) return
      try {
        const { team_names: teams } = await createApiClient({ fetch, apiKey }).whoami()
        isTold = true
        log.info({ workerId, teams }, 'Takes runs of the team of its key only')
      } catch {
        // A word for the operator, which is not worth a warning when it cannot be said.
      }
    },
  }
}
