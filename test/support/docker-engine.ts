import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync } from 'node:fs'
import { type AddressInfo, createConnection, createServer } from 'node:net'
import { basename, join } from 'node:path'
import { pipeline } from 'node:stream'
import {
  programPath as findProgram,
  type PrivateEngine,
  privateEngineProblem,
  startPrivateEngine,
} from '../../packages/cli/src/chaos/private-engine.ts'
import { until } from './poll.ts'

/**
 * A Docker engine of the tests' own, as `oz chaos` has one: it is reached by its socket, and goes when it is disposed of, or when this process ends in
 * whatever way.
 */
export interface TestEngine
  extends Pick<PrivateEngine, 'folder' | 'socket' | 'kill' | 'stop' | 'start' | 'spawnInside'> {
  /** Makes `docker`, and whatever looks for an engine as it does, find this one. */
  readonly env: { DOCKER_HOST: string }
  /** A port of this machine's loopback that leads to one of the engine's. */
  reachInside(port: number): Promise<{ port: number } & AsyncDisposable>
  [Symbol.asyncDispose](): Promise<void>
}

export interface TestEngineOptions {
  /** Containers go on while `dockerd` is away. */
  liveRestore?: boolean
  /** Its images and volumes on a disk of their own, of so many MB. */
  diskMegabytes?: number
  /** Where it takes the addresses of networks from, "base=…,size=…": by default enough for a thousand. */
  addressPool?: string
  /** Further flags of `dockerd`. */
  flags?: string[]
}

/** Why there can be none on this machine; undefined when there can. */
export const engineProblem = privateEngineProblem
/** The system's own before what somebody has put into /usr/local. */
export const programPath = findProgram

const portForwarder = `
const net = require('node:net')
const [socket, port] = process.argv.slice(1)
net.createServer((client) => {
  const inside = net.connect(Number(port), '127.0.0.1')
  client.on('error', () => inside.destroy()).pipe(inside)
  inside.on('error', () => client.destroy()).pipe(client)
}).listen(socket)
`

/** Throws when `engineProblem` has something to say, and with the end of the engine's log when it does not start. */
export async function startEngine({ diskMegabytes, ...options }: TestEngineOptions = {}): Promise<TestEngine> {
  // Short: the path of a socket may have 107 characters.
  const folder = mkdtempSync('/tmp/oz-engine-')
  const disk = diskMegabytes === undefined ? '' : `mount -t tmpfs -o size=${diskMegabytes}m tmpfs "$FOLDER/data"`
  const group = basename(folder)
  const engine = await startPrivateEngine({ ...options, folder, group, env: process.env, prepare: disk })
  return {
    folder,
    socket: engine.socket,
    env: { DOCKER_HOST: `unix://${engine.socket}` },
    kill: () => engine.kill(),
    stop: () => engine.stop(),
    start: (wish) => engine.start(wish),
    spawnInside: (command, how) => engine.spawnInside(command, how),
    reachInside: (port) => reachInside(engine, port),
    [Symbol.asyncDispose]: async () => engine[Symbol.asyncDispose](),
  }
}

async function reachInside(engine: PrivateEngine, port: number): Promise<{ port: number } & AsyncDisposable> {
  const socket = join(engine.folder, `port-${port}.sock`)
  const child = engine.spawnInside([process.execPath, '-e', portForwarder, socket, String(port)])
  await until(() => existsSync(socket))
  const server = createServer((client) => {
    const inside = createConnection(socket)
    pipeline(client, inside, () => {})
    pipeline(inside, client, () => {})
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      server.close()
      await end(child)
    },
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}
