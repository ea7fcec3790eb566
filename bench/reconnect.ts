import { get } from 'node:http'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { bootClockMs, createDialer, createEventPost, fullJitterMs, openSpool, startEventSender } from '@openoz/machine'
import { agentChannelPaths } from '@openoz/protocol'
import pino from 'pino'
import { connectBenchWorker } from './bench-worker.ts'
import { type ServerProcess, startServerProcess } from './control-plane.ts'
import { type LiveAgent, startLiveAgents } from './live-agents.ts'
import { alone, type Benchmark } from './measurement.ts'
import { scratchHome } from './programs.ts'

const full = { agents: 1_000, restSeconds: 20 }
const quick = { agents: 50, restSeconds: 5 }
/** Instead of 12 and 13 minutes: whoever does not find its way back in time is lost while we look. */
const lease = { OZ_LEASE_UNREACHABLE: '15s', OZ_LEASE_STOP: '25s', OZ_LEASE_LOST: '30s' }
const lostMs = 30_000
const renewEveryMs = 5_000

/**
 * 1,000 agents whose control plane is killed and started again. Each has the agent's own event sender, which renews its lease, and a command
 * stream of its own that is opened again with the agent's back-off. Settled: every one has had a renewal acknowledged and its command stream open
 * again, counted from the new server's readiness.
 */
export const reconnectBenchmark: Benchmark = {
  name: 'reconnect',
  async run({ isQuick }) {
    const size = isQuick ? quick : full
    const home = scratchHome()
    await using stack = new AsyncDisposableStack()
    stack.defer(home.remove)
    const controlPlane = stack.use(await startServerProcess(lease))
    const live = await startLiveAgents(controlPlane, size.agents)
    const stopping = new AbortController()
    const agents = await Promise.all(
      live.map((agent, i) => follow(controlPlane, agent, join(home.dataDir, String(i)), stopping.signal)),
    )
    stack.defer(async () => {
      stopping.abort()
      await Promise.all(agents.map(({ stop }) => stop()))
    })
    await settled(agents, bootClockMs(), 'at first')

    const atRest = await loadFor(controlPlane, size.restSeconds)
    await controlPlane.killAndRestart()
    const readyAt = bootClockMs()
    await connectBenchWorker(controlPlane, {
      workerId: 'bench',
      running: live.map(({ runId, executionId }) => ({ task_id: runId, execution_id: executionId })),
      onAssignment: () => {},
    })
    const settledMs = await settled(agents, readyAt, 'after the restart')
    const storm = await controlPlane.probe.read()

    await sleep(lostMs + renewEveryMs)
    const lost = await countNotRunning(controlPlane, size.agents)
    const what = `${size.agents} agents after kill -9 of the server`
    return [
      alone(`${what}: all renewed and listening, from its readiness`, 'ms', settledMs, {
        words: '≤ 10000 ms',
        isMet: (ms) => ms <= 10_000,
      }),
      alone(`${what}: executions that do not run any more`, 'executions', lost, {
        words: '0',
        isMet: (count) => count === 0,
      }),
      alone(`${what}: event loop meanwhile, delay, p99`, 'ms', storm.loopDelayP99Ms, {
        words: 'for information',
        isMet: () => true,
      }),
      alone(`${size.agents} agents at rest: processor time of the server`, '%', atRest, {
        words: 'for information',
        isMet: () => true,
      }),
    ]
  },
}

interface FollowingAgent {
  /** Of the last acknowledged renewal, on the boot clock. */
  renewedAt(): number
  /** When the open command stream began; undefined while there is none. */
  listensSince(): number | undefined
  stop(): Promise<void>
}

async function follow(
  controlPlane: ServerProcess,
  agent: LiveAgent,
  folder: string,
  signal: AbortSignal,
): Promise<FollowingAgent> {
  const log = pino({ level: 'silent' })
  const spool = await openSpool(folder)
  const dialer = createDialer({ serverUrl: controlPlane.url, env: {} })
  const sender = startEventSender({
    spool,
    post: createEventPost(dialer, () => agent.token),
    log,
    signal,
    renewEveryMs,
  })
  let since: number | undefined
  const listening = (async () => {
    for (let failures = 0; !signal.aborted; failures++) {
      const from = performance.now()
      await listen(controlPlane.url, agent.token, signal, (at) => {
        since = at
      })
      since = undefined
      // As the agent's inbox does it.
      if (performance.now() - from > 10_000) failures = 0
      await sleep(fullJitterMs(failures, { baseMs: 250, maxMs: 5_000 }), undefined, { signal }).catch(() => {})
    }
  })()
  return {
    renewedAt: () => sender.lastAcknowledgedSendAt,
    listensSince: () => since,
    async stop() {
      await sender.stop()
      await listening
      spool[Symbol.dispose]()
      await dialer.close()
    },
  }
}

/** One connection's worth; resolves with its end. */
function listen(url: string, token: string, signal: AbortSignal, onOpen: (at: number) => void): Promise<void> {
  return new Promise((resolve) => {
    const headers = { authorization: `Bearer ${token}` }
    const request = get(url + agentChannelPaths.commands, { headers, signal, agent: false }, (response) => {
      response.on('error', () => {}).on('close', resolve)
      if (response.statusCode !== 200) return response.destroy()
      response.once('data', () => onOpen(bootClockMs())).resume()
    })
    request.on('error', () => resolve())
  })
}

/** Milliseconds from `since` until the last of them was there. */
async function settled(agents: FollowingAgent[], since: number, when: string): Promise<number> {
  const isSettled = (agent: FollowingAgent) => agent.renewedAt() > since && (agent.listensSince() ?? 0) > 0
  for (const until = performance.now() + 120_000; performance.now() < until; await sleep(20))
    if (agents.every(isSettled)) return bootClockMs() - since
  const missing = agents.filter((agent) => !isSettled(agent)).length
  throw new Error(`${missing} of ${agents.length} agents did not settle within two minutes ${when}`)
}

/** Percent of one core. */
async function loadFor(controlPlane: ServerProcess, seconds: number): Promise<number> {
  const before = await controlPlane.probe.read()
  const from = performance.now()
  await sleep(seconds * 1000)
  const after = await controlPlane.probe.read()
  return ((after.cpuMs - before.cpuMs) / (performance.now() - from)) * 100
}

async function countNotRunning({ pool }: ServerProcess, agents: number): Promise<number> {
  const { rows } = await pool.query<{ running: string }>(
    "select count(*) as running from executions where state = 'running' and number = 1",
  )
  return agents - Number(rows[0]?.running)
}
