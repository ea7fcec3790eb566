import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { connect } from 'node:net'
import { resolve } from 'node:path'
import { text } from 'node:stream/consumers'
import { pathToFileURL } from 'node:url'
import type { ProbeReading } from './process-probe.ts'

const probeModule = pathToFileURL(resolve(import.meta.dirname, 'process-probe.ts')).href

/**
 * For a process that is to be measured from inside: its environment, and the one who asks. `BENCH_NODE_OPTIONS` is passed on to it, such as
 * `--cpu-prof --cpu-prof-dir=/tmp/profiles`.
 */
export function createProbe(socketPath: string) {
  async function ask(question: 'read' | 'collect'): Promise<ProbeReading> {
    const socket = connect(socketPath)
    await once(socket, 'connect')
    socket.write(question)
    return JSON.parse(await text(socket)) as ProbeReading
  }
  return {
    env: {
      NODE_OPTIONS: `--import ${probeModule} ${process.env.BENCH_NODE_OPTIONS ?? ''}`,
      BENCH_PROBE_SOCKET: socketPath,
    },
    /** Since the last question. */
    read: () => ask('read'),
    /** After garbage collection. */
    collect: async () => {
      await ask('collect')
      return ask('collect')
    },
    /** A process that was killed leaves its socket, in which the next one could not listen. */
    clear: () => rmSync(socketPath, { force: true }),
  }
}

export type Probe = ReturnType<typeof createProbe>
