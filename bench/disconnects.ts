import { startServerProcess } from './control-plane.ts'
import { createEventWriter, startLiveAgents } from './live-agents.ts'
import { alone, type Benchmark } from './measurement.ts'
import { readFrames } from './read-frames.ts'

const viewers = 4
const full = { events: 10_000, disconnects: 100 }
const quick = { events: 1_000, disconnects: 20 }

/** A run whose viewers are cut off again and again, anywhere in the stream: each goes on from the last event that it has whole. */
export const disconnectsBenchmark: Benchmark = {
  name: 'disconnects',
  async run({ isQuick }) {
    const { events, disconnects } = isQuick ? quick : full
    await using controlPlane = await startServerProcess()
    const [agent] = await startLiveAgents(controlPlane, 1)
    if (!agent) throw new Error('there is no agent')
    const writer = createEventWriter(controlPlane, agent)
    const { rows } = await controlPlane.pool.query<{ last_seq: string }>('select last_seq from session_logs')
    const last = Number(rows[0]?.last_seq) + events
    const path = `${controlPlane.url}/api/v1/agent/runs/${agent.runId}/events/stream`

    const viewing = Array.from({ length: viewers }, async () => {
      const seen: number[] = []
      let cuts = 0
      while (seen.at(-1) !== last) {
        // The last connection may stay.
        const limit = cuts < disconnects ? (last / disconnects) * (0.5 + Math.random() / 2) : Number.POSITIVE_INFINITY
        seen.push(...(await readSome(path, controlPlane.apiKey, { since: seen.at(-1) ?? 0, limit, last })))
        cuts++
      }
      return { seen, cuts: cuts - 1 }
    })
    for (let sent = 0; sent < events; sent += 50) await writer.say(50)
    const all = await Promise.all(viewing)
    const wrong = all.reduce((sum, { seen }) => sum + wrongIn(seen, last), 0)
    const cuts = Math.min(...all.map((viewer) => viewer.cuts))
    return [
      alone(
        `gaps and duplicates at ${viewers} viewers of a run of ${events} events, each cut off ${cuts} times or more`,
        'events',
        wrong,
        { words: `0 at ${disconnects} disconnects`, isMet: (count) => count === 0 && cuts >= disconnects },
      ),
    ]
  },
}

/** Ids of the frames that came whole before the reader went, after `limit` of them or with the last. */
async function readSome(
  url: string,
  token: string,
  { since, limit, last }: { since: number; limit: number; last: number },
): Promise<number[]> {
  const leaving = new AbortController()
  const ids: number[] = []
  await readFrames(url, { token, signal: leaving.signal, lastEventId: since }, ({ id }) => {
    ids.push(id)
    if (ids.length >= limit || id === last) leaving.abort()
  })
  return ids
}

function wrongIn(seen: number[], last: number): number {
  const distinct = new Set(seen)
  const isInOrder = seen.every((seq, index) => index === 0 || seq > (seen[index - 1] ?? 0))
  return seen.length - distinct.size + (last - distinct.size) + (isInOrder ? 0 : 1)
}
