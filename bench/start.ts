import { type Benchmark, compared, percentile } from './measurement.ts'
import { dist, scratchHome, startProgram, timeToExit } from './programs.ts'

const rounds = 15

/** `oz --version` and a warm `oz server`, against a Node that does nothing. */
export const startBenchmark: Benchmark = {
  name: 'start',
  async run() {
    const version: number[] = []
    const bare: number[] = []
    // In pairs, so that a busy moment meets both.
    for (let i = 0; i < rounds; i++) {
      bare.push(await timeToExit(['-e', '0']))
      version.push(await timeToExit([dist('oz'), '--version']))
    }

    const home = scratchHome()
    const ready: number[] = []
    try {
      await (await startProgram(['server'], home.env, 'server_ready')).stop()
      for (let i = 0; i < 5; i++) {
        const server = await startProgram(['server'], home.env, 'server_ready')
        ready.push(server.readyMs)
        await server.stop()
      }
    } finally {
      home.remove()
    }

    const control = { name: 'node -e 0', value: percentile(bare, 50) }
    return [
      compared(
        'oz --version, p50',
        'ms',
        { value: percentile(version, 50), control },
        { words: '≤ 1.5 × control', isMet: (_, ratio) => ratio <= 1.5 },
      ),
      compared(
        'warm oz server → ready, p50',
        'ms',
        { value: percentile(ready, 50), control },
        { words: '≤ 1000 ms', isMet: (value) => value <= 1_000 },
      ),
    ]
  },
}
