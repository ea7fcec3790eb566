/**
 * The data on disk: made once by initdb, checked at every start.
 *
 *   postgres/            the cluster; owned by whom PostgreSQL runs as
 *   postgres-password    0600, made before the cluster, read by the server only
 *   postgres.conf        settings, written at every start
 *   postgres.init-…/     a cluster in the making; it becomes `postgres/` by one rename, so a killed first start leaves no half of it
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError } from '@openoz/protocol'
import { syncFolder } from '../sync-folder.ts'
import type { PostgresBinaries } from './binaries.ts'
import { isRoot, refuseOtherOwner, type SystemUser } from './data-dir.ts'
import { explainStartFailure } from './start-failure.ts'

export const superuser = 'openoz'

export interface Cluster {
  dir: string
  password: string
}

export interface ClusterOptions {
  dataDir: string
  binaries: PostgresBinaries
  user: SystemUser
  signal: AbortSignal
}

/** Returns the cluster of this data folder; makes it when there is none. Throws `postgres_version_mismatch`, `disk_full`, …. */
export async function openCluster(options: ClusterOptions): Promise<Cluster & { isNew: boolean }> {
  const { dataDir, binaries, user } = options
  const dir = join(dataDir, 'postgres')
  if (existsSync(dir) && readdirSync(dir).length === 0) rmdirSync(dir)
  const isNew = !existsSync(dir)
  const password = readPassword(dataDir, isNew)
  if (isNew) await initCluster(options, dir, password)
  refuseOtherOwner(dir, user)
  refuseOtherVersion(dir, binaries.majorVersion)
  return { dir, password, isNew }
}

/** What PostgreSQL and its tools get to see: nothing of the server's environment, which holds keys. */
export function postgresEnvironment(): NodeJS.ProcessEnv {
  const libraries = process.env.LD_LIBRARY_PATH
  return { PATH: '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC', ...(libraries && { LD_LIBRARY_PATH: libraries }) }
}

/** Rejects when the program could not be started at all. */
export async function spawned(child: ChildProcess, program: string): Promise<void> {
  try {
    await once(child, 'spawn')
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    // A program that is there and yet "not found" lacks its loader: a system without glibc, such as Alpine.
    const reason = code === 'ENOENT' && existsSync(program) ? ' without glibc' : ` (${program}: ${code})`
    throw new AppError(
      'postgres_unsupported_platform',
      { platform: `${process.platform}-${process.arch}${reason}` },
      { cause },
    )
  }
}

async function initCluster(
  { dataDir, binaries, user, signal }: ClusterOptions,
  dir: string,
  password: string,
): Promise<void> {
  for (const name of readdirSync(dataDir)) {
    if (name.startsWith('postgres.init-'))
      await rm(join(dataDir, name), { recursive: true, force: true, maxRetries: 3 })
  }
  const draft = await mkdtemp(join(dataDir, 'postgres.init-'))
  try {
    const passwordFile = join(draft, 'password')
    writeFileSync(passwordFile, password, { mode: 0o600 })
    if (isRoot()) for (const path of [passwordFile, draft]) chownSync(path, user.uid, user.gid)
    await runInitdb({ dataDir, program: binaries.initdb, user, signal, target: join(draft, 'data'), passwordFile })
    renameSync(join(draft, 'data'), dir)
    await syncFolder(dataDir)
  } finally {
    await rm(draft, { recursive: true, force: true })
  }
}

interface InitdbRun {
  dataDir: string
  program: string
  user: SystemUser
  signal: AbortSignal
  target: string
  passwordFile: string
}

async function runInitdb({ dataDir, program, user, signal, target, passwordFile }: InitdbRun): Promise<void> {
  signal.throwIfAborted()
  const args = [
    `--pgdata=${target}`,
    `--username=${superuser}`,
    `--pwfile=${passwordFile}`,
    '--auth=scram-sha-256',
    '--no-instructions',
  ]
  // PostgreSQL's own C.UTF-8 sorts the same on every machine and after every upgrade of the system's C library.
  args.push('--encoding=UTF8', '--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8')
  const child = spawn(program, args, {
    ...runAs(user),
    cwd: dataDir,
    env: postgresEnvironment(),
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (output += text))
  const kill = () => child.kill('SIGTERM')
  signal.addEventListener('abort', kill)
  try {
    const closed = once(child, 'close')
    // When it cannot be started both reject; the first one tells.
    closed.catch(() => {})
    await spawned(child, program)
    const [exitCode, exitSignal] = await closed
    signal.throwIfAborted()
    if (exitCode !== 0)
      throw explainStartFailure(dataDir, output, `initdb ended with ${exitSignal ?? `exit code ${exitCode}`}`)
  } finally {
    signal.removeEventListener('abort', kill)
  }
}

/** Spawn options that change the user, which only root can do. */
export function runAs(user: SystemUser): Partial<SystemUser> {
  return isRoot() ? user : {}
}

function readPassword(dataDir: string, mayMake: boolean): string {
  const file = join(dataDir, 'postgres-password')
  if (existsSync(file)) {
    const password = readFileSync(file, 'utf8').trim()
    if (password) return password
  }
  if (!mayMake)
    throw new AppError('postgres_start_failed', { dataDir, problem: `its password file ${file} is missing or empty.` })
  const password = randomBytes(32).toString('base64url')
  const draft = `${file}.new`
  writeFileSync(draft, password, { mode: 0o600, flush: true })
  chmodSync(draft, 0o600)
  renameSync(draft, file)
  return password
}

function refuseOtherVersion(dir: string, expected: string): void {
  const file = join(dir, 'PG_VERSION')
  if (!existsSync(file)) {
    throw new AppError('postgres_start_failed', {
      dataDir: dir,
      problem: 'the folder is not empty, but holds no database.',
    })
  }
  const found = readFileSync(file, 'utf8').trim()
  if (found !== expected) throw new AppError('postgres_version_mismatch', { dataDir: dir, found, expected })
}
