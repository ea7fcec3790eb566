/**
 * Loaded with `--import` into a process that is measured: answers, on the Unix socket that BENCH_PROBE_SOCKET names, how late its event loop was
 * since the last question, and what it costs. `collect` collects garbage before it looks.
 */
import { createServer } from 'node:net'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

export interface ProbeReading {
  loopDelayP99Ms: number
  loopDelayMaxMs: number
  /** User and system, since the process began. */
  cpuMs: number
  rssMb: number
}

const socketPath = process.env.BENCH_PROBE_SOCKET
if (socketPath) {
  // For this process, not for what it starts.
  delete process.env.BENCH_PROBE_SOCKET
  delete process.env.NODE_OPTIONS
  startProbe(socketPath)
}

function startProbe(path: string): void {
  const resolutionMs = 5
  const delays = monitorEventLoopDelay({ resolution: resolutionMs })
  delays.enable()
  setFlagsFromString('--expose-gc')
  const collectGarbage = runInNewContext('gc') as () => void
  // It counts from one tick to the next.
  const late = (nanoseconds: number) => Math.max(0, nanoseconds / 1e6 - resolutionMs)
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.on('data', (question) => {
      if (question.toString().startsWith('collect')) collectGarbage()
      const { user, system } = process.cpuUsage()
      const reading: ProbeReading = {
        loopDelayP99Ms: late(delays.percentile(99)),
        loopDelayMaxMs: late(delays.max),
        cpuMs: (user + system) / 1000,
        rssMb: process.memoryUsage.rss() / 1024 ** 2,
      }
      delays.reset()
      socket.end(JSON.stringify(reading))
    })
  })
  server.listen(path).unref()
}
