import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/**
 * The root file system of a container without an engine: a folder, read-only, with nothing in it but what `kind` names, an agent bundle at /agent,
 * and the two places that a task may write to. Processes of their own, with a user id that nobody has heard of and nothing in their environment.
 */
export interface BareRoot extends Disposable {
  /** Runs to the end. The control folder is the caller's, with the files that a worker would put there. */
  run(command: string[], options: { env?: Record<string, string>; control: string }): Promise<RootEnd>
}

interface RootEnd {
  exitCode: number | null
  stdout: string
  stderr: string
}

export type RootKind = 'nothing' | 'musl'

export const rootUser = 12_345

const musl = ['/usr/lib/x86_64-linux-musl/libc.so', '/usr/lib/aarch64-linux-musl/libc.so'].find(existsSync)

/** Why there cannot be such a root here; undefined when there can. */
export function noRootBecause(kind: RootKind): string | undefined {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'only root of a Linux machine can make one'
  if (kind === 'musl' && musl === undefined) return 'musl is not installed'
  if (kind === 'musl' && !existsSync('/bin/busybox')) return 'busybox-static is not installed'
  return undefined
}

const enter = `set -e
root=$1 bundle=$2 control=$3 user=$4
shift 4
mount --make-rprivate /
mount --bind "$root" "$root"
mount --bind "$bundle" "$root/agent"
mount -o remount,bind,ro "$root/agent"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
mknod -m 666 "$root/dev/null" c 1 3
mknod -m 666 "$root/dev/urandom" c 1 9
mkdir "$root/dev/pts"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs tmpfs "$root/workspace"
chown "$user" "$root/workspace"
mount --bind "$control" "$root/run/openoz"
mount -o remount,bind,ro "$root"
cd /
exec chroot --userspec="$user:$user" "$root" /agent/lib/ld.so --library-path /agent/lib /agent/bin/dash -c 'cd /workspace; exec "$@"' dash "$@"`

export function makeBareRoot(kind: RootKind, bundle: string): BareRoot {
  const root = mkdtempSync(join(tmpdir(), 'oz-root-'))
  chmodSync(root, 0o755)
  for (const name of ['agent', 'proc', 'dev', 'workspace', 'run/openoz'])
    mkdirSync(join(root, name), { recursive: true })
  if (kind === 'musl') addMusl(root)
  return {
    async run(command, { env = {}, control }) {
      const user = String(rootUser)
      execFileSync('chown', ['-R', `${user}:${user}`, control])
      const words = [
        '--mount',
        '--pid',
        '--fork',
        '--kill-child',
        '/bin/sh',
        '-c',
        enter,
        'sh',
        root,
        bundle,
        control,
        user,
      ]
      // The path is for the tools that make the root, and the usual one of an image.
      const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
      const child: ChildProcess = spawn('unshare', [...words, ...command], { env: { PATH: path, ...env } })
      const texts = { stdout: '', stderr: '' }
      for (const name of ['stdout', 'stderr'] as const) {
        child[name]?.setEncoding('utf8').on('data', (text: string) => {
          texts[name] += text
        })
      }
      const [exitCode] = (await once(child, 'close')) as [number | null]
      return { exitCode, ...texts }
    },
    [Symbol.dispose]: () => rmSync(root, { recursive: true, force: true }),
  }
}

/** A C library that programs of glibc do not run with, and a shell. */
function addMusl(root: string): void {
  for (const name of ['bin', 'lib', 'etc']) mkdirSync(join(root, name))
  copyFileSync(musl ?? '', join(root, 'lib', `ld-musl-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}.so.1`))
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'))
  const applets = execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).trim().split('\n')
  for (const name of applets) if (name !== 'busybox') symlinkSync('busybox', join(root, 'bin', name))
}
