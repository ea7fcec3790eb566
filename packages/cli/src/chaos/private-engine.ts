import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { delimiter, join } from 'node:path'
import { identifyProcess, type ProcessIdentity, sleep } from '@openoz/machine'

/**
 * A Docker engine that nobody else has: `dockerd` with a `containerd` of its own, so that one can be killed without the other, in a network and a mount
 * namespace of its own, so that nothing of it is left on this machine: no bridge, no rule of the firewall, no mount. It is reached by its socket.
 *
 * It needs root, and is ready within a second or two. A third process, the keeper, holds the namespaces and knows by the end of its stdin that whoever
 * started the engine is gone, however that went: then it ends everything of it, its containers by their control group, and removes its folder.
 */
export interface PrivateEngine extends AsyncDisposable {
  readonly folder: string
  readonly socket: string
  /** undefined while it is away. */
  readonly dockerd: ProcessIdentity | undefined
  /** Ends of `dockerd` and `containerd` that nobody asked for. */
  readonly crashes: readonly { name: string; code: number | null; signal: NodeJS.Signals | null }[]
  /** SIGKILL of `dockerd`; containers stay as they are. */
  kill(): Promise<void>
  /** SIGTERM: it ends its containers first, or leaves them with `liveRestore`. */
  stop(): Promise<void>
  /** After `kill` or `stop`; without `liveRestore` it ends what still runs. Rejects with the end of its log when it does not start. */
  start(options?: { liveRestore?: boolean }): Promise<void>
  /** A program in its network: there the loopback is the engine's. Its path must be absolute, or it is looked for. */
  spawnInside(command: string[], options?: SpawnOptions): ChildProcess
}

export interface PrivateEngineOptions {
  /** An empty one. Its path is short: that of a socket may have 107 characters. */
  folder: string
  /** Of the control groups of its containers; nobody else has one of that name. */
  group: string
  /** For what it writes. Default: `folder`. */
  logs?: string
  env: NodeJS.ProcessEnv
  /** Whether containers go on while `dockerd` is away, until a `start` says something else. Default: they do not. */
  liveRestore?: boolean
  /** Where it takes the addresses of networks from, "base=…,size=…": by default enough for a thousand. */
  addressPool?: string
  /** Further flags of `dockerd`. */
  flags?: string[]
  /** Shell that is run in the mount namespace before anything is started, with FOLDER set. */
  prepare?: string
}

const programs = ['dockerd', 'containerd', 'runc', 'iptables', 'ip', 'unshare', 'nsenter']

/** Why there can be none on this machine; undefined when there can. */
export function privateEngineProblem(): string | undefined {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'only root on Linux can start a Docker engine'
  const missing = programs.filter((name) => programPath(name) === undefined)
  return missing.length === 0 ? undefined : `there is no ${missing.join(', ')}`
}

/** The system's own before what somebody has put into /usr/local. */
export function programPath(name: string): string | undefined {
  const folders = ['/usr/sbin', '/usr/bin', '/sbin', '/bin', ...(process.env.PATH ?? '').split(delimiter)]
  return folders.map((folder) => join(folder, name)).find((file) => existsSync(file))
}

/**
 * FOLDER comes as a variable, so that this shell is not among the processes that name it. What is mounted over: this machine's settings of Docker with its
 * key, and where the shims of containers make their sockets, whatever `containerd` is told.
 */
const keeper = `
ip link set lo up
made=
for place in /etc/docker /run/containerd; do
  [ -d "$place" ] || { mkdir -p "$place" && made="$made $place"; }
  mount -t tmpfs tmpfs "$place"
done
eval "$PREPARE"
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
umount -l /etc/docker /run/containerd
[ -z "$made" ] || rmdir $made 2>/dev/null
rm -rf --one-file-system "$FOLDER"
`

/** Throws when `privateEngineProblem` has something to say, and with the end of the engine's log when it does not start. */
export async function startPrivateEngine(options: PrivateEngineOptions): Promise<PrivateEngine> {
  const problem = privateEngineProblem()
  if (problem !== undefined) throw new Error(problem)
  const engine = new Engine(options)
  try {
    await engine.begin()
    return engine
  } catch (error) {
    await engine[Symbol.asyncDispose]()
    throw error
  }
}

const startWithinMs = 60_000
/** Without live-restore it gives its containers 10 s. */
const stopWithinMs = 30_000

class Engine implements PrivateEngine {
  readonly folder: string
  readonly socket: string
  readonly crashes: { name: string; code: number | null; signal: NodeJS.Signals | null }[] = []
  readonly #options: PrivateEngineOptions
  readonly #children = new Map<string, ChildProcess>()
  readonly #expected = new WeakSet<ChildProcess>()
  #keeper: ChildProcess | undefined
  #isOver = false

  constructor(options: PrivateEngineOptions) {
    this.folder = options.folder
    this.socket = join(options.folder, 'docker.sock')
    this.#options = options
  }

  get dockerd(): ProcessIdentity | undefined {
    const pid = pidOf(this.#children.get('dockerd'))
    return pid === undefined ? undefined : identifyProcess(pid)
  }

  async begin(): Promise<void> {
    const { folder } = this
    const { group, prepare = '', env } = this.#options
    for (const name of ['data', 'run', 'containerd', 'opt']) mkdirSync(join(folder, name), { recursive: true })
    // Not in the group of whoever started it: a Ctrl-C is not for it.
    this.#keeper = spawn(programPath('unshare') ?? 'unshare', ['--net', '--mount', 'sh', '-c', keeper], {
      env: { PATH: `${env.PATH ?? ''}:/usr/sbin:/usr/bin:/sbin:/bin`, FOLDER: folder, GROUP: group, PREPARE: prepare },
      detached: true,
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const ready = once(this.#keeper.stdout as NodeJS.ReadableStream, 'data')
    const isReady = await Promise.race([ready.then(() => true), once(this.#keeper, 'exit').then(() => false)])
    if (!isReady) throw new Error('no namespaces can be made for an engine')
    writeFileSync(join(folder, 'containerd.toml'), containerdSettings(folder))
    this.#run('containerd', ['--config', join(folder, 'containerd.toml')])
    await this.#until('containerd', async () => existsSync(join(folder, 'run/containerd.sock')))
    await this.start()
  }

  async start({ liveRestore = this.#options.liveRestore ?? false }: { liveRestore?: boolean } = {}): Promise<void> {
    const { group, addressPool = 'base=10.213.0.0/16,size=26', flags = [] } = this.#options
    const at = (name: string) => join(this.folder, name)
    rmSync(at('dockerd.pid'), { force: true })
    this.#run('dockerd', [
      ...['--data-root', at('data'), '--exec-root', at('run/docker'), '--pidfile', at('dockerd.pid')],
      ...['--containerd', at('run/containerd.sock'), '-H', `unix://${this.socket}`, '--log-level', 'warn'],
      ...['--default-address-pool', addressPool, '--bip', '10.212.0.1/24'],
      ...['--cgroup-parent', `/${group}`, ...(liveRestore ? ['--live-restore'] : []), ...flags],
    ])
    await this.#until('dockerd', () => pings(this.socket))
  }

  async kill(): Promise<void> {
    await this.#end('dockerd', 'SIGKILL')
  }

  async stop(): Promise<void> {
    await this.#end('dockerd', 'SIGTERM')
  }

  spawnInside(command: string[], options: SpawnOptions = {}): ChildProcess {
    const [program = '', ...args] = command
    const inside = ['-t', String(this.#keeper?.pid), '--net', '--mount', '--', programPath(program) ?? program, ...args]
    return spawn(programPath('nsenter') ?? 'nsenter', inside, { stdio: 'inherit', ...options })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true
    // So that no container has to be waited for.
    await this.#killContainers()
    await this.#end('dockerd', 'SIGTERM')
    await this.#end('containerd', 'SIGTERM')
    const last = this.#keeper
    if (last && pidOf(last) !== undefined) {
      const ended = once(last, 'exit')
      last.stdin?.end()
      await ended
    }
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
  }

  async #killContainers(): Promise<void> {
    const script = `find /sys/fs/cgroup -path "*/$1/*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u | xargs -r kill -KILL`
    const killing = spawn('sh', ['-c', script, 'sh', this.#options.group], { stdio: 'ignore' })
    await once(killing, 'exit').catch(() => {})
  }

  #run(name: string, args: string[]): void {
    if (this.#isOver) throw new Error('the engine is over')
    const { logs = this.folder, env } = this.#options
    const log = openSync(join(logs, `${name}.log`), 'a', 0o600)
    const child = this.spawnInside([name, ...args], { env, detached: true, stdio: ['ignore', 'ignore', log] })
    closeSync(log)
    this.#children.set(name, child)
    child.on('error', () => {})
    child.on('exit', (code, signal) => {
      if (!this.#expected.has(child) && !this.#isOver) this.crashes.push({ name, code, signal })
    })
  }

  async #end(name: string, signal: NodeJS.Signals): Promise<void> {
    const child = this.#children.get(name)
    if (!child || pidOf(child) === undefined) return
    this.#expected.add(child)
    const ended = once(child, 'exit').then(() => true)
    child.kill(signal)
    // A frozen one hears nothing else.
    child.kill('SIGCONT')
    const limit = new AbortController()
    const late = sleep(stopWithinMs, limit.signal).catch(() => {})
    await Promise.race([ended, late])
    limit.abort()
    if (pidOf(child) !== undefined) child.kill('SIGKILL')
    await ended
  }

  async #until(name: string, isSo: () => Promise<boolean>): Promise<void> {
    const giveUpAt = performance.now() + startWithinMs
    while (!(await isSo())) {
      const isAlive = pidOf(this.#children.get(name)) !== undefined
      if (!isAlive || performance.now() > giveUpAt) throw new Error(`${name} does not start: ${this.#logTail(name)}`)
      await sleep(50)
    }
  }

  #logTail(name: string): string {
    const file = join(this.#options.logs ?? this.folder, `${name}.log`)
    return existsSync(file) ? readFileSync(file, 'utf8').slice(-1_500) : 'it wrote nothing'
  }
}

function pidOf(child: ChildProcess | undefined): number | undefined {
  return child && child.exitCode === null && child.signalCode === null ? child.pid : undefined
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

function pings(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const asking = request({ socketPath, path: '/_ping', agent: false, timeout: 2_000 }, (answer) => {
      answer.resume()
      resolve(answer.statusCode === 200)
    })
    asking.on('timeout', () => asking.destroy())
    asking.on('error', () => resolve(false))
    asking.end()
  })
}
