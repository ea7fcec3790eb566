import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { until } from './poll.ts'

/**
 * A machine to install things on and to throw away: a copy of this file system that is written to memory (overlayfs), with processes and a network of its
 * own, and without a systemd. Its network is a loopback on which one address is a server of the test's, and a way out of which every packet is counted
 * and none arrives. Needs root. Goes with one SIGKILL.
 */
export interface ScratchMachine extends AsyncDisposable {
  run(command: string, options?: { user?: string; env?: Record<string, string> }): Promise<CommandResult>
  /** What is there now that was not there at the start: files, and folders. */
  additions(): Promise<string[]>
  /** How many packets have left for anywhere but the loopback. */
  packetsOut(): Promise<number>
}

interface CommandResult {
  exitCode: number
  stdout: string
  stderr: string
}

const run = promisify(execFile)

/** $1: folder of the machine. Process 1 waits for whoever has no parent any more. */
const boot = `set -e
folder=$1
ip link set lo up
ip link add out0 type veth peer name out1
sysctl -qw net.ipv6.conf.all.disable_ipv6=1 || true
ip link set out0 arp off up; ip link set out1 arp off up
ip addr add 192.0.2.1/24 dev out0
ip route add default dev out0
mount -t tmpfs tmpfs "$folder/disk"
cd "$folder/disk"
mkdir upper work root
mount -t overlay -o "lowerdir=/,upperdir=$PWD/upper,workdir=$PWD/work" overlay root
cd root
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
for place in run tmp var/tmp; do mount -t tmpfs -o mode=1777 tmpfs $place; done
rm -rf var/lib/oz etc/openoz opt/openoz usr/local/bin/oz usr/local/bin/oz-agent-worker
mkdir -p home/ada; chown 64123:64123 home/ada
mkdir -p mnt; pivot_root . mnt
cd /
touch /run/ready
while :; do sleep 3600 & wait; done`

/** Inside: what dials 127.0.0.1:$1 reaches the socket $2. */
const relay = `const { connect, createServer } = require('node:net')
createServer((near) => {
  const far = connect(process.argv[2])
  near.pipe(far).pipe(near)
  for (const socket of [near, far]) socket.on('error', () => { near.destroy(); far.destroy() })
}).listen(Number(process.argv[1]), '127.0.0.1', () => console.log('listening'))`

const user = ['setpriv', '--reuid', '64123', '--regid', '64123', '--clear-groups']

/** A booted machine on which \`serverUrl\` is what it is here; or why there can be none. */
export async function bootScratchMachine(serverUrl: string): Promise<ScratchMachine | { problem: string }> {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return { problem: 'only root on Linux can make one' }
  const folder = mkdtempSync(join(tmpdir(), 'oz-scratch-'))
  chmodSync(folder, 0o755)
  await run('mkdir', [join(folder, 'disk')])
  const namespaces = [
    '--fork',
    '--pid',
    '--mount',
    '--net',
    '--uts',
    '--ipc',
    '--kill-child',
    '--propagation',
    'private',
  ]
  const child = spawn('unshare', [...namespaces, 'sh', '-c', boot, 'sh', folder], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: process.env.PATH },
  })
  const ended = once(child, 'close')
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk
  })
  const socket = join(folder, 'server.sock')
  const outside = await passOn(socket, new URL(serverUrl).port)
  const end = async () => {
    child.kill('SIGKILL')
    await ended
    await outside[Symbol.asyncDispose]()
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  }
  const first = () => readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').split(' ')[0] ?? ''
  const inside = (command: string[], env: Record<string, string>) => {
    const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`)
    const words = ['-t', first(), '--all', '--root', '--wd', 'env', '-i', ...variables, ...command]
    return run('nsenter', words, { maxBuffer: 1e8, timeout: 120_000 }).then(
      ({ stdout, stderr }) => ({ exitCode: 0, stdout, stderr }),
      ({ code, stdout, stderr }: CommandResult & { code: number }) => ({ exitCode: code, stdout, stderr }),
    )
  }
  const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
  const machine: ScratchMachine = {
    run: (command, { user: name, env = {} } = {}) => {
      const home = name === undefined ? '/root' : `/home/${name}`
      const words = [...(name === undefined ? [] : user), 'sh', '-c', command]
      return inside(words, { PATH: path, HOME: home, ...env })
    },
    async additions() {
      const upper = `/mnt${folder}/disk/upper`
      const { stdout } = await machine.run(
        `cd ${upper} && find . -mindepth 1 | while read -r path; do [ -d "$path" ] && [ -d "/mnt/$path" ] || echo "$path"; done; ls -A /tmp /var/tmp`,
      )
      return stdout.trim().split('\n').sort()
    },
    async packetsOut() {
      const { stdout } = await machine.run('cat /sys/class/net/out0/statistics/tx_packets || cat /proc/net/dev')
      const [, counters = ''] = /^\s*out0:\s*(.*)$/m.exec(stdout) ?? []
      return counters === '' ? Number(stdout) : Number(counters.split(/\s+/)[9])
    },
    [Symbol.asyncDispose]: end,
  }
  const isReady = await until(
    async () => child.exitCode !== null || (first() !== '' && (await machine.run('test -e /run/ready')).exitCode === 0),
    Boolean,
    { timeoutMs: 20_000, everyMs: 50 },
  ).catch(() => false)
  if (!isReady || child.exitCode !== null) {
    await end()
    return { problem: `no machine can be made: ${said.trim()}` }
  }
  const node = `/mnt${process.execPath}`
  const words = ['-t', first(), '--all', '--root', '--wd', node, '-e', relay, new URL(serverUrl).port, `/mnt${socket}`]
  const relaying = spawn('nsenter', words, { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(relaying.stdout, 'data')
  return machine
}

/** What connects to the socket reaches the port. */
async function passOn(socket: string, port: string): Promise<Server> {
  const open = new Set<Socket>()
  const server = createServer((near) => {
    const far = connect(Number(port), '127.0.0.1')
    near.pipe(far).pipe(near)
    for (const end of [near, far]) {
      open.add(end)
      end.on('close', () => open.delete(end))
      end.on('error', () => {
        near.destroy()
        far.destroy()
      })
    }
  })
  server.listen(socket)
  await once(server, 'listening')
  return Object.assign(server, {
    [Symbol.asyncDispose]: async () => {
      for (const end of open) end.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  })
}
