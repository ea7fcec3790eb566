import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { cancelAllRuns, startServerProcess } from './control-plane.ts'
import { alone, type Benchmark } from './measurement.ts'
import { memoryMb, processesBelow, scratchHome, startWorkerProcess, stop } from './programs.ts'

const full = { first: 5, more: 20, settleMs: 5_000 }
const quick = { first: 2, more: 4, settleMs: 2_000 }
/** Its name in the process list. What it takes is not what supervision takes. */
const standIn = 'tail'

/**
 * What a worker needs for each run that it supervises: its own growth, and shims and guards around the agent, from the 5th to the 25th run. The
 * agent itself is a `tail` that does nothing.
 */
export const supervisedBenchmark: Benchmark = {
  name: 'supervised',
  async run({ isQuick }) {
    const { first, more, settleMs } = isQuick ? quick : full
    const home = scratchHome()
    await using stack = new AsyncDisposableStack()
    stack.defer(home.remove)
    const controlPlane = stack.use(await startServerProcess())
    const folder = home.env.HOME ?? home.dataDir
    const agent = join(folder, 'stand-in')
    writeFileSync(agent, `#!/bin/sh\nexec ${standIn} -f /dev/null\n`)
    chmodSync(agent, 0o755)
    const env = { ...home.env, OZ_API_KEY: controlPlane.apiKey, OZ_SERVER_URL: controlPlane.url }
    const worker = startWorkerProcess(join(folder, 'worker-state'), env, { ozPath: agent })
    stack.defer(() => stop(worker))
    stack.defer(() => cancelAllRuns(controlPlane))
    const pid = worker.pid ?? 0

    async function runMore(wanted: number, inAll: number): Promise<{ workerMb: number; aroundMb: number }> {
      for (let i = 0; i < wanted; i++)
        await controlPlane.post('/api/v1/agent/runs', { prompt: 'bench', config: { worker_host: 'bench' } })
      const agentsOf = (pids: number[]) => pids.filter((one) => nameOf(one) === standIn)
      for (const until = performance.now() + 120_000; agentsOf(processesBelow([pid])).length < inAll; await sleep(100))
        if (performance.now() > until) throw new Error(`the worker has not started ${inAll} agents within two minutes`)
      await sleep(settleMs)
      const around = processesBelow([pid]).filter((one) => one !== pid && nameOf(one) !== standIn)
      return { workerMb: memoryMb(pid, 'Rss'), aroundMb: around.reduce((sum, one) => sum + memoryMb(one, 'Pss'), 0) }
    }

    const before = await runMore(first, first)
    const after = await runMore(more, first + more)
    const workerMb = (after.workerMb - before.workerMb) / more
    const aroundMb = (after.aroundMb - before.aroundMb) / more
    return [
      alone(`memory of a supervised run, of ${more} more: worker and shim`, 'MB', workerMb + aroundMb, {
        words: '≤ 1.5 MB',
        isMet: (mb) => mb <= 1.5,
      }),
      alone('of it the processes around the agent, PSS', 'MB', aroundMb, {
        words: 'for information',
        isMet: () => true,
      }),
    ]
  },
}

function nameOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim()
  } catch {
    return ''
  }
}
