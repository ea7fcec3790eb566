import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { createDialer, type Dialer } from '@openoz/machine'
import { ApiError, agentProtocolVersion, leaseLostExitCode } from '@openoz/protocol'
import manifest from '../package.json' with { type: 'json' }
import type { RunAgentOptions, RunAgentResult } from './agent-options.ts'
import { type AgentChannel, createAgentChannel } from './channel.ts'
import { runExecution } from './execution.ts'

/** As long as a control plane may be away without a run noticing (the default of `OZ_LEASE_STOP`); the server's own figure comes with its hello. */
const defaultHelloPatienceMs = 12 * 60_000

/** One execution of a run, from hello to teardown. Never rejects: what goes wrong is in the run's log and in the exit code. */
export async function runAgent(options: RunAgentOptions): Promise<RunAgentResult> {
  const { serverUrl, executionToken, log, signal, env } = options
  let dialer: Dialer
  try {
    dialer = createDialer({ serverUrl, env })
  } catch (error) {
    log.error({ err: error }, 'the control plane’s address cannot be used')
    return { exitCode: 1, error }
  }
  try {
    const channel = createAgentChannel(dialer, executionToken)
    const startedAt = new Date()
    const { hello, sentAt: helloSentAt } = await sayHello(channel, options)
    return await runExecution({ ...options, hello, channel, dialer, startedAt, helloSentAt })
  } catch (error) {
    if (signal.aborted) return { exitCode: 143 }
    if (error instanceof NoHello) {
      // Another one may be answered where nobody was; a refusal would be the same.
      return { exitCode: error.cause instanceof ApiError ? 1 : leaseLostExitCode, error: error.cause }
    }
    log.error({ err: error }, 'the agent failed')
    return { exitCode: 1, error }
  } finally {
    await dialer.close()
  }
}

/** Rejects with NoHello when there is nothing to do, or nobody to do it for. */
async function sayHello(
  channel: AgentChannel,
  { log, signal, helloPatienceMs = defaultHelloPatienceMs }: RunAgentOptions,
): ReturnType<AgentChannel['hello']> {
  const request = {
    protocol: agentProtocolVersion,
    agent_version: manifest.version,
    process_nonce: randomUUID(),
    host: hostname(),
    pid: process.pid,
  }
  try {
    return await channel.hello(request, AbortSignal.any([signal, AbortSignal.timeout(helloPatienceMs)]))
  } catch (error) {
    if (signal.aborted) throw error
    if (error instanceof ApiError) {
      const { status, code, detail } = error.problem
      log.warn({ status, code }, `the control plane has no work for this agent: ${detail}`)
    } else log.error({ err: error }, 'the control plane did not answer')
    throw new NoHello('hello was not answered', { cause: error })
  }
}

class NoHello extends Error {}
