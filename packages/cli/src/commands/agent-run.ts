import { readAgentEnvironment, runAgent } from '@openoz/agent'
import { AppError } from '@openoz/protocol'
import type { GlobalOptions } from '../global-options.ts'
import { createLogger } from '../log.ts'
import { onStopSignals } from '../stop-signals.ts'

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

/** What this program acts on, or what the run's own config says as well; everything else of the reference's flags is only noted. */
const actedOn = new Set(['--task-id', '--cwd', '--model', '--idle-on-complete'])

export async function agentRun({ globals, options, given }: AgentRunInput, env: NodeJS.ProcessEnv): Promise<number> {
  if (options.taskId === undefined) {
    throw new AppError('usage', {
      problem: 'Agents are started by a worker, with --task-id. To start a run: oz agent run-cloud --prompt TEXT.',
    })
  }
  if (globals.apiKey !== undefined) env.OZ_API_KEY = globals.apiKey
  const { executionToken, spoolDir, serverUrl } = await readAgentEnvironment(env)
  const address = globals.serverUrl ?? globals.serverRootUrl ?? serverUrl
  if (address === undefined)
    throw new AppError('usage', { problem: 'The control plane’s address is missing: --server-url.' })

  const log = createLogger({ name: 'agent', level: globals.debug ? 'debug' : 'info', env })
  const ignored = given.filter((flag) => !actedOn.has(flag))
  using stop = onStopSignals()
  const { exitCode } = await runAgent({
    serverUrl: address,
    executionToken,
    spoolDir,
    workingDirectory: options.cwd ?? process.cwd(),
    log,
    signal: stop.first,
    env,
    notices: ignored.length === 0 ? [] : [`Options of the agent without an effect yet: ${ignored.join(', ')}.`],
  })
  return exitCode
}
