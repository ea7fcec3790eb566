import { setTimeout as sleep } from 'node:timers/promises'
import { type DockerScene, startDockerScene } from './docker-scene.ts'
import { alone, type Benchmark } from './measurement.ts'
import { memoryMb } from './programs.ts'

const full = { first: 5, more: 20, settleMs: 5_000 }
const quick = { first: 2, more: 4, settleMs: 2_000 }
/** As many at once as the machine starts without pushing each other aside. */
const atOnce = 5

/**
 * What a worker needs for each container that it has: its own growth from the 5th to the 25th. Their agents have done what they were asked for and wait
 * for more, each connected to the control plane through the worker. What containers and engine take is not what the worker takes.
 */
export const dockerMemoryBenchmark: Benchmark = {
  name: 'docker-memory',
  async run({ isQuick }) {
    const { first, more, settleMs } = isQuick ? quick : full
    await using scene = await startDockerScene({ model: () => ({ text: 'Done.' }), idleTimeoutMinutes: 30 })
    const memory = async (runs: number) => {
      await startIdle(scene, runs)
      await sleep(settleMs)
      const pid = scene.worker.pid ?? 0
      return { rss: memoryMb(pid, 'Rss'), pss: memoryMb(pid, 'Pss') }
    }
    const none = await memory(0)
    const before = await memory(first)
    const after = await memory(first + more)
    return [
      alone(
        `docker: memory of a container, of ${more} more: growth of the worker`,
        'MB',
        (after.rss - before.rss) / more,
        {
          words: '≤ 1.5 MB',
          isMet: (mb) => mb <= 1.5,
        },
      ),
      alone('docker: worker without containers: RSS', 'MB', none.rss, { words: 'for information', isMet: () => true }),
      alone(`docker: worker with ${first + more} containers: PSS`, 'MB', after.pss, {
        words: 'for information',
        isMet: () => true,
      }),
    ]
  },
}

/** Until there are so many in all, whose turn is over. */
async function startIdle(scene: DockerScene, inAll: number): Promise<void> {
  const { controlPlane } = scene
  const idle = async () => {
    const { rows } = await controlPlane.pool.query<{ count: string }>(
      "select count(*) from runs join executions on run_id = runs.id where runs.state = 'SUCCEEDED' and executions.ended_at is null",
    )
    return Number(rows[0]?.count)
  }
  for (let started = await idle(); started < inAll; ) {
    const wanted = Math.min(inAll, started + atOnce)
    for (; started < wanted; started++) await scene.run('Say done.')
    for (const limit = performance.now() + 120_000; (await idle()) < wanted; await sleep(100))
      if (performance.now() > limit) throw new Error('the agents have not come to rest within two minutes')
  }
}
