import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { until } from './poll.ts'

/**
 * A machine with a systemd of its own: process 1 of new namespaces, over a copy of this file system that is written to memory (overlayfs),
 * in a cgroup of its own. The network is this machine's, so that what runs there reaches a control plane of the test. Nothing of this
 * machine's own services is started: only journald, D-Bus, logind and the managers of users.
 *
 * It boots within about two seconds, needs root, and goes with one SIGKILL.
 */
export interface SystemdMachine extends AsyncDisposable {
  /** Runs a command there, as root in `/` with `HOME` and `PATH` only. */
  run(command: string[], env?: Record<string, string>): Promise<{ exitCode: number; stdout: string; stderr: string }>
}

/** Where programs are found there: those of this tree, and the system's. */
const path = `${fileURLToPath(new URL('../../node_modules/.bin', import.meta.url))}:/usr/sbin:/usr/bin:/sbin:/bin`
const root = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')
const systemd = '/lib/systemd/systemd'
const run = promisify(execFile)

/** What would change the kernel that all machines share, or only takes time. */
const masked = [
  'systemd-sysctl.service',
  'systemd-binfmt.service',
  'proc-sys-fs-binfmt_misc.automount',
  'systemd-modules-load.service',
  'systemd-random-seed.service',
  'systemd-remount-fs.service',
  'systemd-firstboot.service',
  'systemd-udev-trigger.service',
  'systemd-udevd.service',
  'systemd-udevd-kernel.socket',
  'systemd-udevd-control.socket',
  'systemd-journald-audit.socket',
  'systemd-networkd.service',
  'NetworkManager.service',
  'timers.target',
]

/** $1: folder of the machine, $2: its cgroup, $3: this tree. Says why it goes no further. */
const boot = `set -e
folder=$1 cgroup=$2 tree=$3
echo $$ >"$cgroup/cgroup.procs"
exec unshare --fork --pid --mount --uts --ipc --cgroup --kill-child --propagation private sh -c '
set -e
folder=$1 tree=$2
mount -t tmpfs tmpfs "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" overlay "$folder/root"
cd "$folder/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for place in run tmp dev etc/systemd/system; do mount -t tmpfs -o mode=755 tmpfs $place; done
chmod 1777 tmp
# Wherever the tree lies: on a disk of its own it is not in the copy, and below /tmp it is hidden by now.
mkdir -p ".$tree"; mount --bind "$tree" ".$tree"; mount -o remount,bind,ro ".$tree"
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
ln -s /proc/self/fd dev/fd; ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr
mkdir dev/shm; mount -t tmpfs tmpfs dev/shm
for unit in ${masked.join(' ')}; do ln -s /dev/null etc/systemd/system/$unit; done
printf "[Unit]\\nRequires=basic.target\\nWants=dbus.socket systemd-logind.service systemd-user-sessions.service\\n" >etc/systemd/system/for-tests.target
rm -rf etc/fstab etc/crypttab etc/openoz
# Without one it would be a first boot, which enables whatever is installed.
printf %032x $$ >etc/machine-id
closed=.$tree; while closed=$(dirname "$closed"); [ "$closed" != . ]; do chmod o+rx "$closed"; done
mkdir -p mnt; pivot_root . mnt; umount -l mnt
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin ${systemd} --unit=for-tests.target --show-status=0
' sh "$folder" "$tree"`

/** A booted machine, or why there can be none here. */
export async function bootSystemd(): Promise<SystemdMachine | { problem: string }> {
  const missing = missingHere()
  if (missing !== undefined) return { problem: missing }
  const folder = mkdtempSync(join(tmpdir(), 'oz-systemd-'))
  const cgroup = join(cgroupMount() ?? '', folder.slice(folder.lastIndexOf('/') + 1))
  try {
    mkdirSync(cgroup)
  } catch (error) {
    rmSync(folder, { recursive: true })
    return { problem: `no cgroup can be made: ${(error as Error).message}` }
  }
  const child = spawn('sh', ['-c', boot, 'sh', folder, cgroup, root], { stdio: ['ignore', 'ignore', 'pipe'] })
  const ended = once(child, 'close')
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk
  })
  const end = async () => {
    child.kill('SIGKILL')
    await ended
    await until(() => removeCgroup(cgroup))
    rmSync(folder, { recursive: true, force: true })
  }
  const state = await until(
    () => (child.exitCode === null ? bootState(child) : 'ended'),
    (answer) => /^(running|degraded|ended)/.test(answer),
    { timeoutMs: 30_000, everyMs: 100 },
  ).catch(String)
  if (/^(running|degraded)/.test(state))
    return { run: (command, env) => runIn(child, command, env), [Symbol.asyncDispose]: end }
  await end()
  return { problem: `systemd could not be booted (${state.trim()}): ${said.trim()}` }
}

function missingHere(): string | undefined {
  if (process.platform !== 'linux' || process.getuid?.() !== 0)
    return 'only root on Linux can boot a systemd of its own'
  const needed = [
    systemd,
    '/usr/bin/dbus-daemon',
    '/usr/lib/pam.d/systemd-user',
    '/usr/bin/nsenter',
    '/usr/sbin/useradd',
  ]
  const missing = needed.filter((file) => !existsSync(file))
  if (missing.length > 0) return `there is no ${missing.join(', ')}`
  return cgroupMount() === undefined ? 'cgroup v2 is not mounted' : undefined
}

function cgroupMount(): string | undefined {
  return /^\S+ (\S+) cgroup2 /m.exec(readFileSync('/proc/mounts', 'utf8'))?.[1]
}

const commandTimeoutMs = 25_000

/** Empty until its process 1 answers. */
async function bootState(child: ChildProcess): Promise<string> {
  return (await runIn(child, ['systemctl', 'is-system-running'])).stdout
}

async function runIn(child: ChildProcess, command: string[], env: Record<string, string> = {}) {
  const [first] = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').split(' ')
  if (!first) return { exitCode: 1, stdout: '', stderr: 'not started yet' }
  const variables = Object.entries({ HOME: '/root', PATH: path, ...env }).map(([name, value]) => `${name}=${value}`)
  const inside = ['-t', first, '--mount', '--pid', '--uts', '--ipc', '--cgroup', '--root', '--wd']
  return run('nsenter', [...inside, 'env', '-i', ...variables, ...command], { timeout: commandTimeoutMs }).then(
    ({ stdout, stderr }) => ({ exitCode: 0, stdout, stderr }),
    ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) => ({
      exitCode: code,
      stdout,
      stderr,
    }),
  )
}

/** False while something in it is not gone yet. */
function removeCgroup(folder: string): boolean {
  try {
    for (const { name } of readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory()))
      if (!removeCgroup(join(folder, name))) return false
    rmdirSync(folder)
    return true
  } catch {
    return !existsSync(dirname(folder))
  }
}
