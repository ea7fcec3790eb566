import { readAgentEnvironment, runAgent } from '@openoz/agent'
import { AppError } from '@openoz/protocol'
import type { GlobalOptions } from '../global-options.ts'
import { createLogger } from '../log.ts'
import { onStopSignals } from '../stop-signals.ts'
import { agentRunFlags, longName } from './agent-run-flags.ts'

export interface AgentRunOptions {
  taskId?: string
  cwd?: string
}

export interface AgentRunInput {
  globals: Pick<GlobalOptions, 'apiKey' | 'serverUrl' | 'serverRootUrl' | 'debug'>
  options: AgentRunOptions
  /** Long names of the command's own options that were given. */
  given: string[]
}

/** For the run's log: which of the given options of the reference's command line do nothing here, where a person gave such. */
export function ignoredOptions(given: readonly string[]): string[] {
  const ignored = agentRunFlags
    .filter(({ asAgent }) => asAgent === undefined)
    .map(({ flags }) => longName(flags))
    .filter((name) => given.includes(name))
  return ignored.length === 0 ? [] : [`Options of the agent without an effect yet: ${ignored.join(', ')}.`]
}

/** To be the agent of a run that a worker was given. */
export async function agentRun({ globals, options, given }: AgentRunInput, env: NodeJS.ProcessEnv): Promise<number> {
  refuseConflicts(given)
  if (globals.apiKey !== undefined) env.OZ_API_KEY = globals.apiKey
  const { executionToken, spoolDir, serverUrl } = await readAgentEnvironment(env)
  const address = globals.serverUrl ?? globals.serverRootUrl ?? serverUrl
  if (address === undefined)
    throw new AppError('usage', { problem: 'The control plane’s address is missing: --server-url.' })

  const log = createLogger({ name: 'agent', level: globals.debug ? 'debug' : 'info', env })
  using stop = onStopSignals()
  const { exitCode } = await runAgent({
    serverUrl: address,
    executionToken,
    spoolDir,
    workingDirectory: options.cwd ?? process.cwd(),
    log,
    signal: stop.first,
    env,
    notices: ignoredOptions(given),
  })
  return exitCode
}

function refuseConflicts(given: readonly string[]): void {
  for (const { flags, asAgent } of agentRunFlags) {
    const name = longName(flags)
    if (asAgent !== 'conflicts' || !given.includes(name)) continue
    throw new AppError('usage', {
      problem: `--task-id and ${name} do not go together: the run has its prompt and config.`,
    })
  }
}
