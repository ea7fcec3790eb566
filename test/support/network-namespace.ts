import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'

const run = promisify(execFile)

/**
 * A network of its own for a program: the loopback, and a way out of which every packet is counted and none arrives. Whatever a program
 * dials that is not on the loopback, a name server included, shows as a packet there (`packetsOut`, called inside).
 */
const setup = `set -e
ip link set lo up
ip link add out0 type veth peer name out1
sysctl -qw net.ipv6.conf.all.disable_ipv6=1 || true
ip link set out0 arp off up; ip link set out1 arp off up
ip addr add 192.0.2.1/24 dev out0
ip route add default dev out0
exec "$@"`

const unshare = process.getuid?.() === 0 ? ['--net'] : ['--user', '--map-current-user', '--keep-caps', '--net']

/** Resolves with what the program wrote to stdout. Rejects when it fails. */
export async function runWithoutNetwork(program: string, args: string[], env: NodeJS.ProcessEnv): Promise<string> {
  const command = [...unshare, 'sh', '-c', setup, 'sh', program, ...args]
  return (await run('unshare', command, { env, maxBuffer: 1e8 })).stdout
}

/** Why there can be no such network here; undefined when there can. */
export async function noNamespaceBecause(): Promise<string | undefined> {
  return runWithoutNetwork('true', [], process.env).then(
    () => undefined,
    (error: { stderr?: string }) => error.stderr?.trim() || 'no `unshare`',
  )
}

/** Inside: how many packets have left since the start. */
export function packetsOut(): number {
  const [, counters = ''] = /^\s*out0:\s*(.*)$/m.exec(readFileSync('/proc/self/net/dev', 'utf8')) ?? []
  return Number(counters.split(/\s+/)[9])
}
