import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ServerProcess, startServerProcess } from './control-plane.ts'
import { createEventWriter, type LiveAgent, startLiveAgents } from './live-agents.ts'
import { inLanes } from './load.ts'
import { type Benchmark, compared, percentile } from './measurement.ts'
import { createProbe, type Probe } from './probe.ts'
import { scratchHome, stop } from './programs.ts'
import { openRawViewer, type RawViewer } from './raw-viewers.ts'

const runs = 4
const batchEvents = 5
const full = { viewersOfRun: 50, deliveriesPerSecond: 25_000, seconds: 12, idleViewers: 1_000 }
const quick = { viewersOfRun: 10, deliveriesPerSecond: 2_500, seconds: 3, idleViewers: 200 }
const warmUpSeconds = 2

/**
 * 200 viewers of four runs, whose agents append so many events that 25,000 are delivered a second. Per core means: divided by the processor time
 * of the server, which also authenticates, stores and reads the events. Latency counts from sending the batch to each viewer's reading of each
 * event. Control: a bare `node:http` server that is posted the same bytes in the same batches and writes them to as many viewers.
 */
export const fanOutBenchmark: Benchmark = {
  name: 'fan-out',
  async run({ isQuick }) {
    const size = isQuick ? quick : full
    await using controlPlane = await startServerProcess()
    const agents = await startLiveAgents(controlPlane, runs)
    const ours = await openOurs(controlPlane, agents)
    await using bare = await openBare(await sampleFrame(controlPlane, agents[0]))

    const control = await deliver(bare, size)
    const value = await deliver(ours, size)
    const idle = { ours: await idleViewerKb(ours, size.idleViewers), bare: await idleViewerKb(bare, size.idleViewers) }
    const name = 'bare node:http writer'
    const atRate = `fan-out to ${runs * size.viewersOfRun} viewers, ${size.deliveriesPerSecond} deliveries/s asked for, ${Math.round(value.perSecond)} made`
    return [
      compared(
        `${atRate}: per core`,
        'deliveries/s',
        { value: value.perCore, control: { name, value: control.perCore } },
        { words: '≥ 25,000 deliveries/s', isMet: (perCore) => perCore >= 25_000 },
      ),
      compared(
        `${atRate}: sent → read, p99`,
        'ms',
        { value: percentile(value.latencies, 99), control: { name, value: percentile(control.latencies, 99) } },
        {
          words: '≤ 100 ms',
          isMet: (ms) => ms <= 100 && value.perSecond >= 0.95 * size.deliveriesPerSecond,
        },
      ),
      compared(
        `memory of an idle viewer, of ${size.idleViewers}`,
        'KB',
        { value: idle.ours, control: { name, value: idle.bare } },
        { words: '≤ 25 KB', isMet: (kb) => kb <= 25 },
      ),
    ]
  },
}

/** Somebody who can be given events and watched. */
export interface Channels {
  probe: Probe
  /** Resolves when they are taken; not called again before. */
  append(channel: number, events: number): Promise<unknown>
  watch(channel: number, onFrames: (viewer: RawViewer, count: number) => void): Promise<RawViewer>
}

export async function openOurs(controlPlane: ServerProcess, agents: LiveAgent[]): Promise<Channels> {
  const writers = agents.map((agent) => createEventWriter(controlPlane, agent))
  const written = agents.map(() => 0)
  const { rows } = await controlPlane.pool.query<{ run_id: string; last_seq: string }>(
    'select run_id, last_seq from session_logs',
  )
  const firstSeq = new Map(rows.map((row) => [row.run_id, Number(row.last_seq)]))
  return {
    probe: controlPlane.probe,
    append: async (channel, events) => {
      written[channel] = (written[channel] ?? 0) + events
      await writers[channel]?.say(events)
    },
    watch(channel, onFrames) {
      const runId = agents[channel]?.runId ?? ''
      const since = (firstSeq.get(runId) ?? 0) + (written[channel] ?? 0)
      const path = `/api/v1/agent/runs/${runId}/events/stream?since=${since}`
      return openRawViewer({ url: controlPlane.url, path, token: controlPlane.apiKey, onFrames })
    },
  }
}

async function sampleFrame(controlPlane: ServerProcess, agent: LiveAgent | undefined): Promise<string> {
  const { rows } = await controlPlane.pool.query<{ seq: string }>('select seq from session_events limit 1')
  if (!agent || !rows[0]) throw new Error('there is no run')
  const path = `/api/v1/agent/runs/${agent.runId}/events?limit=1`
  const answer = await fetch(controlPlane.url + path, { headers: { authorization: `Bearer ${controlPlane.apiKey}` } })
  const [event] = ((await answer.json()) as { events: Record<string, unknown>[] }).events
  const chunk = { ...event, type: 'agent_message_chunk', data: { content: { type: 'text', text: 'x'.repeat(120) } } }
  return `id: 100\nevent: agent_message_chunk\ndata: ${JSON.stringify(chunk)}\n\n`
}

async function openBare(frame: string): Promise<Channels & AsyncDisposable> {
  const home = scratchHome()
  const probe = createProbe(join(home.env.HOME ?? home.dataDir, 'probe'))
  const child: ChildProcess = spawn(process.execPath, [resolve(import.meta.dirname, 'bare-sse-writer.ts')], {
    env: { ...home.env, ...probe.env },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  if (!child.stdout) throw new Error('it says nothing')
  const [url] = (await once(createInterface({ input: child.stdout }), 'line')) as [string]
  return {
    probe,
    append: async (channel, events) =>
      (await fetch(`${url}/${channel}`, { method: 'POST', body: frame.repeat(events) })).text(),
    watch: (channel, onFrames) => openRawViewer({ url, path: `/${channel}`, onFrames }),
    async [Symbol.asyncDispose]() {
      await stop(child, 'SIGKILL')
      home.remove()
    },
  }
}

interface DeliveryLoad {
  viewersOfRun: number
  deliveriesPerSecond: number
  seconds: number
}

/** Each run's events go out in even batches; the next one only after the one before was taken. */
export async function deliver(channels: Channels, { viewersOfRun, deliveriesPerSecond, seconds }: DeliveryLoad) {
  const latencies: number[] = []
  let delivered = 0
  let countedFrom = Number.POSITIVE_INFINITY
  const sentAt = Array.from({ length: runs }, () => [] as number[])
  const viewers: RawViewer[] = []
  for (let channel = 0; channel < runs; channel++)
    await inLanes(8, viewersOfRun, async () => {
      const viewer = await channels.watch(channel, ({ frames }, count) => {
        const now = performance.now()
        const sent = sentAt[channel] ?? []
        for (let at = frames - count; at < frames; at++) {
          const from = sent[at] ?? Number.NaN
          if (from < countedFrom) continue
          delivered++
          latencies.push(now - from)
        }
      })
      viewers.push(viewer)
    })

  const everyMs = (1000 * batchEvents * viewersOfRun * runs) / deliveriesPerSecond
  const from = performance.now()
  const until = from + (warmUpSeconds + seconds) * 1000
  const appending = Array.from({ length: runs }, async (_, channel) => {
    for (let due = from + (channel * everyMs) / runs; due < until; due += everyMs) {
      await sleep(Math.max(0, due - performance.now()))
      const now = performance.now()
      for (let i = 0; i < batchEvents; i++) sentAt[channel]?.push(now)
      await channels.append(channel, batchEvents)
    }
  })
  await sleep(warmUpSeconds * 1000)
  const before = await channels.probe.read()
  countedFrom = performance.now()
  await Promise.all(appending)
  const endsAt = performance.now()
  const after = await channels.probe.read()
  const inTime = delivered
  await everyFrame(viewers, sentAt, viewersOfRun)
  for (const viewer of viewers) viewer.close()
  const cpuSeconds = (after.cpuMs - before.cpuMs) / 1000
  return {
    latencies,
    perSecond: (inTime * 1000) / (endsAt - countedFrom),
    perCore: inTime / cpuSeconds,
    loopDelayP99Ms: after.loopDelayP99Ms,
  }
}

/** What counts frames must know that none is missing. */
async function everyFrame(viewers: RawViewer[], sentAt: number[][], viewersOfRun: number): Promise<void> {
  const wanted = (index: number) => sentAt[Math.floor(index / viewersOfRun)]?.length ?? 0
  const isComplete = () => viewers.every((viewer, index) => !viewer.isBroken && viewer.frames === wanted(index))
  for (const until = performance.now() + 20_000; !isComplete(); await sleep(50))
    if (performance.now() > until)
      throw new Error(`viewers read ${viewers.map(({ frames }) => frames)} of ${sentAt.map(({ length }) => length)}`)
}

/** Of the process; what the kernel keeps for a socket is not in it. */
async function idleViewerKb(channels: Channels, count: number): Promise<number> {
  const open = async (n: number) => {
    const viewers: RawViewer[] = []
    await inLanes(16, n, async (i) => {
      viewers.push(await channels.watch(i % runs, () => {}))
    })
    await sleep(500)
    return viewers
  }
  // The first ones also pay for what is kept for good.
  const early = await open(count / 5)
  const before = await channels.probe.collect()
  const viewers = await open(count)
  const after = await channels.probe.collect()
  for (const viewer of [...early, ...viewers]) viewer.close()
  return ((after.rssMb - before.rssMb) * 1024) / count
}
