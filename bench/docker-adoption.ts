import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { adoptionLines, countingModel } from './adoption.ts'
import { cancelAllRuns } from './control-plane.ts'
import { startDockerScene } from './docker-scene.ts'
import type { Benchmark } from './measurement.ts'
import { stop } from './programs.ts'

const full = [1, 20]
const quick = [1, 3]

/**
 * As `adoption`, with tasks in containers; and until the new worker's own `oz_worker_tasks_active` counts all of them. As many as a worker of the direct
 * backend is asked for.
 */
export const dockerAdoptionBenchmark: Benchmark = {
  name: 'docker-adoption',
  async run({ isQuick }) {
    const port = await freePort()
    const workerEnv = { OTEL_METRICS_EXPORTER: 'prometheus', OTEL_EXPORTER_PROMETHEUS_PORT: String(port) }
    await using scene = await startDockerScene({ model: countingModel, workerEnv })
    const { controlPlane } = scene
    let { worker } = scene
    const workers = {
      start() {
        worker = scene.startWorker()
      },
      kill: () => stop(worker, 'SIGKILL'),
    }
    try {
      const hasTasks = async (count: number) => (await activeTasks(port)) === count
      return await adoptionLines({ controlPlane, workers, where: 'docker: ', hasTasks }, isQuick ? quick : full)
    } finally {
      await cancelAllRuns(controlPlane)
    }
  },
}

/** undefined: the worker does not say yet. */
async function activeTasks(port: number): Promise<number | undefined> {
  try {
    const text = await (await fetch(`http://localhost:${port}/metrics`)).text()
    const found = /^oz_worker_tasks_active(?:\{[^}]*\})? (\d+)/m.exec(text)?.[1]
    return found === undefined ? undefined : Number(found)
  } catch {
    return undefined
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, 'localhost')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
