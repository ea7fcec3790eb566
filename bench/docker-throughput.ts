import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { createConnection, createServer } from 'node:net'
import { join } from 'node:path'
import { pipeline } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { listContainers } from '../packages/worker/src/engine/containers.ts'
import { runBare } from './docker-control.ts'
import { type DockerScene, startDockerScene } from './docker-scene.ts'
import { type Benchmark, compared } from './measurement.ts'

const slots = 10
const full = 50
const quick = 10
/** What each run is asked for: one command, and a last word. */
const work = 'sleep 1'
const patienceMs = 5 * 60_000

/**
 * Runs of a small piece of work, ten at a time, until all have succeeded and none of their containers is left. Control: the same agent with the same
 * work in as many containers, ten at a time, that nobody but the engine makes: each says for itself what it wants to run (`oz agent run --prompt`). For
 * scale, the same with a network for each, as tasks have; and the command alone, without an agent.
 */
export const dockerThroughputBenchmark: Benchmark = {
  name: 'docker-throughput',
  async run({ isQuick }) {
    const runs = isQuick ? quick : full
    await using scene = await startDockerScene({
      slots,
      model: ({ body }) => {
        const hasWorked = JSON.stringify(body.messages).includes('"role":"tool"')
        return hasWorked ? { text: 'Done.' } : { toolCalls: [{ name: 'run_command', arguments: { command: work } }] }
      },
    })
    const { api, controlPlane, engine } = scene
    const relay = join(engine.folder, 'bench-relay')
    mkdirSync(relay)
    await using _relayed = await relayTo(controlPlane.url, join(relay, 'server.sock'))
    // It puts the agent on the engine.
    await secondsForRuns(scene, 1)

    const bare = async (task: Parameters<typeof runBare>[1]) => {
      const from = performance.now()
      let left = runs
      const slot = async () => {
        while (left-- > 0) await runBare(api, task)
      }
      await Promise.all(Array.from({ length: slots }, slot))
      return (performance.now() - from) / 1000
    }
    const agent = {
      command: ['/agent/bin/oz-task', 'oz', 'agent', 'run', '--prompt', 'Work.'],
      environment: { OZ_SERVER_URL: 'unix:/run/openoz-server/server.sock', OZ_API_KEY: controlPlane.apiKey },
      relay,
    }
    const agents = await bare(agent)
    const value = await secondsForRuns(scene, runs)
    const agentsApart = await bare({ ...agent, hasOwnNetwork: true })
    const commands = await bare({ command: ['/bin/sh', '-c', work], relay })
    const line = (name: string, control: { name: string; value: number }, limit?: number) =>
      compared(name, 's', { value, control }, limit === undefined ? forInformation : atMostRatio(limit))
    const name = `docker: ${runs} runs, ${slots} at a time`
    return [
      line(name, { name: 'the same agent in bare containers', value: agents }, 1.15),
      line(`${name}, beside networks`, { name: 'the same, each with a network of its own', value: agentsApart }),
      line(`${name}, beside commands`, { name: `bare containers with \`${work}\` alone`, value: commands }),
    ]
  },
}

const forInformation = { words: 'for information', isMet: () => true }

function atMostRatio(limit: number) {
  return { words: `≤ ${limit} × control`, isMet: (_value: number, ratio: number) => ratio <= limit }
}

async function secondsForRuns({ run, controlPlane, api }: DockerScene, runs: number): Promise<number> {
  const from = performance.now()
  const ids = await Promise.all(Array.from({ length: runs }, () => run('Work.')))
  const states = async () => {
    const { rows } = await controlPlane.pool.query<{ state: string }>('select state from runs where id = any($1)', [
      ids,
    ])
    return rows.map(({ state }) => state)
  }
  for (const limit = from + patienceMs; ; await sleep(50)) {
    const found = await states()
    if (found.every((state) => state === 'SUCCEEDED')) break
    const failed = found.find((state) => state === 'FAILED' || state === 'ERROR')
    if (failed !== undefined || performance.now() > limit) throw new Error(`not all runs have succeeded: ${failed}`)
  }
  while ((await listContainers(api, { labels: ['oz-task-id'] })).length > 0) await sleep(20)
  return (performance.now() - from) / 1000
}

/** A socket of this machine that leads to the control plane, for containers that have no worker to give them one. */
async function relayTo(url: string, socket: string): Promise<AsyncDisposable> {
  const { hostname, port } = new URL(url)
  const server = createServer((client) => {
    const there = createConnection(Number(port), hostname)
    pipeline(client, there, () => {})
    pipeline(there, client, () => {})
  })
  await once(server.listen(socket), 'listening')
  return { [Symbol.asyncDispose]: async () => void server.close() }
}
