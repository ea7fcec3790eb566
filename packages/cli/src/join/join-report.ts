import { delimiter, join } from 'node:path'
import { backgroundLog, type StartedWorker } from './background-worker.ts'
import type { Installation, InstallPlaces, JoinedWorker } from './installation.ts'

interface JoinedReport {
  worker: JoinedWorker
  /** The backend. */
  why: string
  /** Undefined where systemd has started it. */
  started: StartedWorker | undefined
  env: NodeJS.ProcessEnv
}

/** Where everything is and how to be rid of it, also of a worker that is not connected. */
export function reportJoined(
  { worker, why, started, env }: JoinedReport,
  { places, installation, say }: { places: InstallPlaces; installation: Installation; say: (line: string) => void },
): void {
  const { serverUrl, workerId, backend, keptBy, keyFile } = worker
  // Where the names are not on the PATH they are said in full.
  const isOnPath = (env.PATH ?? '').split(delimiter).includes(places.bin)
  const program =
    installation.bundle !== undefined && !isOnPath ? join(places.bin, 'oz-agent-worker') : 'oz-agent-worker'
  const systemctl = keptBy === 'user' ? 'systemctl --user' : 'systemctl'
  const runs = started
    ? `in the background, process ${started.pid}; after a restart of the machine \`${program} join\` starts it`
    : 'as a service of systemd'
  const rows: [string, string][] = [
    ['backend', `${backend} (${why})`],
    ['runs', runs],
    ['key', `${keyFile}, mode 0600`],
    ['log', started ? backgroundLog(worker) : `journalctl ${keptBy === 'user' ? '--user ' : ''}-u oz-agent-worker`],
    ['stop', started ? `${program} leave --stop` : `${systemctl} stop oz-agent-worker`],
    ['remove', `${program} leave`],
  ]
  say(`This machine has joined ${serverUrl} as worker ${workerId}.`)
  for (const [name, value] of rows) say(`  ${name.padEnd(9)}${value}`)
}
