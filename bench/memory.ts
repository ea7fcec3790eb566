import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { type Benchmark, compared } from './measurement.ts'
import { cpuTicks, memoryMb, processesOf, scratchHome, startProgram } from './programs.ts'

const settleMs = 10_000
const idleMs = 20_000
const ticksPerSecond = 100

/** Idle memory and CPU of `oz up`: control plane, worker and database. */
export const memoryBenchmark: Benchmark = {
  name: 'memory',
  async run() {
    const home = scratchHome()
    const up = await startProgram(['up', '--worker-id', 'bench'], home.env, 'worker_ready')
    const bare = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1e9)'], { stdio: 'ignore' })
    try {
      await sleep(settleMs)
      const family = () => processesOf(up.child.pid ?? 0, home.dataDir)
      const ticksBefore = sum(family().map(cpuTicks))
      await sleep(idleMs)
      const pids = family()
      const cpuPercent = ((sum(pids.map(cpuTicks)) - ticksBefore) / ticksPerSecond / (idleMs / 1000)) * 100
      const worker = pids.find((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('oz-agent-worker')) ?? 0

      const control = { name: 'node doing nothing', value: memoryMb(bare.pid ?? 0, 'Rss') }
      const atMost = (limit: number) => ({ words: `≤ ${limit} MB`, isMet: (value: number) => value <= limit })
      return [
        compared('server RSS, idle', 'MB', { value: memoryMb(up.child.pid ?? 0, 'Rss'), control }, atMost(160)),
        compared('worker RSS, idle', 'MB', { value: memoryMb(worker, 'Rss'), control }, atMost(90)),
        compared(
          'all of oz up, PSS, idle',
          'MB',
          { value: sum(pids.map((pid) => memoryMb(pid, 'Pss'))), control },
          atMost(350),
        ),
        {
          name: 'all of oz up, CPU, idle',
          value: Math.round(cpuPercent * 100) / 100,
          unit: '%',
          target: '≤ 1 %',
          control: null,
          ratio: null,
          ok: cpuPercent <= 1,
        },
      ]
    } finally {
      bare.kill('SIGKILL')
      await up.stop()
      home.remove()
    }
  },
}

const sleep = (ms: number) => new Promise((done) => setTimeout(done, ms))
const sum = (numbers: number[]) => numbers.reduce((total, number) => total + number, 0)
