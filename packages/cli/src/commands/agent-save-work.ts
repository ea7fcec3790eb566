import { AppError, leaseLostExitCode } from '@openoz/protocol'
import type { Command } from 'commander'
import { run } from '../command-context.ts'
import { createLogger } from '../log.ts'
import { onStopSignals } from '../stop-signals.ts'

/**
 * What workers start when an agent has died without saving: not for people, so help does not name it. Reads the same environment as
 * `agent run`. Exit code 0: saved; 75: the control plane did not answer in time, and what was kept is still there; 1: it cannot be saved.
 */
export function registerSaveWork(group: Command): void {
  group
    .command('save-work', { hidden: true })
    .description('save what an agent left that has died')
    .action(
      run(async ({ options: globals, env }) => {
        const [{ readAgentEnvironment }, { saveKeptWork }] = await Promise.all([
          import('@openoz/agent'),
          import('@openoz/agent/save-kept-work'),
        ])
        const { executionToken, spoolDir, serverUrl } = await readAgentEnvironment(env)
        const address = globals.serverUrl ?? globals.serverRootUrl ?? serverUrl
        if (address === undefined || spoolDir === undefined) {
          const missing = address === undefined ? 'The control plane’s address' : 'OZ_SPOOL_DIR'
          throw new AppError('usage', { problem: `${missing} is missing: this command is started by a worker.` })
        }
        const log = createLogger({ name: 'save-work', level: globals.debug ? 'debug' : 'info', env })
        using stop = onStopSignals()
        const { saved, canBeTriedAgain } = await saveKeptWork({
          serverUrl: address,
          executionToken,
          spoolDir,
          env,
          log,
          signal: stop.first,
        })
        if (saved) return 0
        return canBeTriedAgain ? leaseLostExitCode : 1
      }),
    )
}
