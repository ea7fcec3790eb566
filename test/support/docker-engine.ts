import { type ChildProcess, execFile, type SpawnOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { type AddressInfo, createConnection, createServer } from 'node:net'
import { delimiter, join } from 'node:path'
import { pipeline } from 'node:stream'
import { promisify } from 'node:util'
import { until } from './poll.ts'

const run = promisify(execFile)

/**
 * A Docker engine of the tests' own: `dockerd` with a `containerd` of its own, so that one can be killed without the other, in a network and a mount
 * namespace of its own, so that nothing of it is left on this machine: no bridge, no rule of the firewall, no mount. It is reached by its socket.
 *
 * It is ready within about a second, needs root, and goes when it is disposed of, or when this process ends in whatever way.
 */
export interface TestEngine extends AsyncDisposable {
  readonly folder: string
  readonly socket: string
  /** Makes `docker`, and whatever looks for an engine as it does, find this one. */
  readonly env: { DOCKER_HOST: string }
  /** SIGKILL of `dockerd`; containers stay as they are. */
  kill(): Promise<void>
  /** SIGTERM: it ends its containers first, or leaves them with `liveRestore`. */
  stop(): Promise<void>
  /** After `kill` or `stop`. */
  start(): Promise<void>
  /** A program in its network: there the loopback is the engine's. Paths must be absolute. */
  spawnInside(command: string[], options?: SpawnOptions): ChildProcess
  /** A port of this machine's loopback that leads to one of the engine's. */
  reachInside(port: number): Promise<{ port: number } & AsyncDisposable>
}

export interface TestEngineOptions {
  /** Containers go on while `dockerd` is away. */
  liveRestore?: boolean
  /** Its images and volumes on a disk of their own, of so many MB. */
  diskMegabytes?: number
  /** Further flags of `dockerd`. */
  flags?: string[]
}

/** Why there can be none on this machine; undefined when there can. */
export function engineProblem(): string | undefined {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'only root on Linux can start a Docker engine'
  const programs = ['dockerd', 'containerd', 'runc', 'iptables', 'ip', 'unshare', 'nsenter']
  const missing = programs.filter((name) => programPath(name) === undefined)
  return missing.length === 0 ? undefined : `there is no ${missing.join(', ')}`
}

/** Debian's own before what somebody has put into /usr/local. */
export function programPath(name: string): string | undefined {
  const folders = ['/usr/sbin', '/usr/bin', '/sbin', '/bin', ...(process.env.PATH ?? '').split(delimiter)]
  return folders.map((folder) => join(folder, name)).find((file) => existsSync(file))
}

/**
 * Holds the namespaces, and cleans up when its stdin ends: with the process of the tests, however that ends. FOLDER comes as a variable, so that
 * this shell is not among the processes that name it.
 */
const keeper = `
ip link set lo up
# Not this machine's settings of Docker, nor its key.
mkdir -p /etc/docker && mount -t tmpfs tmpfs /etc/docker
if [ -n "$DISK" ]; then mount -t tmpfs -o "size=$DISK" tmpfs "$FOLDER/data"; fi
echo ready
cat >/dev/null
for process in /proc/[0-9]*; do
  if tr '\\0' ' ' 2>/dev/null <"$process/cmdline" | grep -qF -- "$FOLDER/"; then kill -KILL "\${process#/proc/}" 2>/dev/null; fi
done
find /sys/fs/cgroup -path "*/$GROUP/*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u | xargs -r kill -KILL 2>/dev/null
for try in 1 2 3 4 5 6 7 8 9 10; do
  find /sys/fs/cgroup -depth -type d -path "*/$GROUP*" -exec rmdir {} + 2>/dev/null
  [ -n "$(find /sys/fs/cgroup -type d -path "*/$GROUP*" 2>/dev/null)" ] || break
  sleep 0.1
done
awk -v folder="$FOLDER/" 'index($2, folder) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount -l
rm -rf --one-file-system "$FOLDER"
`

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
export async function startEngine(options: TestEngineOptions = {}): Promise<TestEngine> {
  const problem = engineProblem()
  if (problem !== undefined) throw new Error(problem)
  // Short: the path of a socket may have 107 characters.
  const folder = mkdtempSync('/tmp/oz-engine-')
  const engine = new Engine(folder, options)
  try {
    await engine.begin()
    return engine
  } catch (error) {
    await engine[Symbol.asyncDispose]()
    throw error
  }
}

class Engine implements TestEngine {
  readonly folder: string
  readonly socket: string
  readonly env: { DOCKER_HOST: string }
  readonly #options: TestEngineOptions
  /** Of all control groups of its containers. */
  readonly #group: string
  #keeper: ChildProcess | undefined
  #containerd: ChildProcess | undefined
  #dockerd: ChildProcess | undefined

  constructor(folder: string, options: TestEngineOptions) {
    this.folder = folder
    this.socket = join(folder, 'docker.sock')
    this.env = { DOCKER_HOST: `unix://${this.socket}` }
    this.#options = options
    this.#group = folder.slice('/tmp/'.length)
  }

  async begin(): Promise<void> {
    for (const name of ['data', 'run', 'containerd', 'opt']) mkdirSync(join(this.folder, name))
    const { diskMegabytes } = this.#options
    const env = {
      ...process.env,
      FOLDER: this.folder,
      GROUP: this.#group,
      DISK: diskMegabytes ? `${diskMegabytes}m` : '',
    }
    this.#keeper = spawn('unshare', ['--net', '--mount', 'sh', '-c', keeper], {
      env,
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    await once(this.#keeper.stdout as NodeJS.ReadableStream, 'data')
    writeFileSync(join(this.folder, 'containerd.toml'), containerdSettings(this.folder))
    this.#containerd = this.#spawnLogged('containerd', ['--config', join(this.folder, 'containerd.toml')])
    await until(() => existsSync(join(this.folder, 'run/containerd.sock')))
    await this.start()
  }

  async start(): Promise<void> {
    rmSync(join(this.folder, 'dockerd.pid'), { force: true })
    const at = (name: string) => join(this.folder, name)
    const flags = ['--data-root', at('data'), '--exec-root', at('run/docker'), '--pidfile', at('dockerd.pid')]
    const live = this.#options.liveRestore ? ['--live-restore'] : []
    this.#dockerd = this.#spawnLogged('dockerd', [
      ...flags,
      ...['--containerd', at('run/containerd.sock'), '-H', this.env.DOCKER_HOST, '--log-level', 'warn'],
      ...['--default-address-pool', 'base=10.213.0.0/16,size=26', '--bip', '10.212.0.1/24'],
      ...['--cgroup-parent', `/${this.#group}`, ...live, ...(this.#options.flags ?? [])],
    ])
    const state = await until(async () => (this.#dockerd?.exitCode === null ? pings(this.socket) : 'ended'), Boolean, {
      timeoutMs: 30_000,
      everyMs: 50,
    }).catch(String)
    if (state !== true) throw new Error(`dockerd does not start (${state}): ${this.#logTail('dockerd')}`)
  }

  async kill(): Promise<void> {
    await end(this.#dockerd, 'SIGKILL')
  }

  async stop(): Promise<void> {
    await end(this.#dockerd, 'SIGTERM')
  }

  spawnInside(command: string[], options: SpawnOptions = {}): ChildProcess {
    const [program = '', ...args] = command
    const inside = ['-t', String(this.#keeper?.pid), '--net', '--mount', '--', programPath(program) ?? program, ...args]
    return spawn('nsenter', inside, { stdio: 'inherit', ...options })
  }

  async reachInside(port: number): Promise<{ port: number } & AsyncDisposable> {
    const socket = join(this.folder, `port-${port}.sock`)
    const child = this.spawnInside([process.execPath, '-e', portForwarder, socket, String(port)])
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
        await end(child, 'SIGKILL')
      },
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Gracefully, so that no container has to be waited for: dockerd gives each 10 s.
    await this.#killContainers()
    await end(this.#dockerd, 'SIGTERM')
    await end(this.#containerd, 'SIGTERM')
    if (this.#keeper && this.#keeper.exitCode === null) {
      const ended = once(this.#keeper, 'exit')
      this.#keeper.stdin?.end()
      await ended
    }
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
  }

  async #killContainers(): Promise<void> {
    const script = `find /sys/fs/cgroup -path "*/$1/*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u | xargs -r kill -KILL`
    await run('sh', ['-c', script, 'sh', this.#group]).catch(() => {})
  }

  #spawnLogged(program: string, args: string[]): ChildProcess {
    const child = this.spawnInside([program, ...args], { stdio: ['ignore', 'ignore', 'pipe'] })
    child.stderr?.pipe(createWriteStream(join(this.folder, `${program}.log`), { flags: 'a' }))
    return child
  }

  #logTail(program: string): string {
    const file = join(this.folder, `${program}.log`)
    return existsSync(file) ? readFileSync(file, 'utf8').slice(-1_500) : 'it wrote nothing'
  }
}

function containerdSettings(folder: string): string {
  return [
    'version = 2',
    `root = "${folder}/containerd"`,
    `state = "${folder}/run/containerd"`,
    'disabled_plugins = ["io.containerd.grpc.v1.cri"]',
    '[grpc]',
    `address = "${folder}/run/containerd.sock"`,
    '[plugins."io.containerd.internal.v1.opt"]',
    `path = "${folder}/opt"`,
    '',
  ].join('\n')
}

async function end(child: ChildProcess | undefined, signal: NodeJS.Signals): Promise<void> {
  if (!child || child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill(signal)
  await ended
}

function pings(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const asking = request({ socketPath, path: '/_ping', agent: false }, (answer) => {
      answer.resume()
      resolve(answer.statusCode === 200)
    })
    asking.on('error', () => resolve(false))
    asking.end()
  })
}
