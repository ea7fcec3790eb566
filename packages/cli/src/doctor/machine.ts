import { execFile } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { access, stat, statfs } from 'node:fs/promises'
import { delimiter, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { readServerOptions } from '@openoz/server'
import { describeIsolation, directLayout } from '@openoz/worker'
import type { Finding } from './finding.ts'

const run = promisify(execFile)

export function checkNode(version: string): Finding {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const isTested = major > 22 || (major === 22 && minor >= 18)
  if (isTested) return { check: 'node', level: 'ok', text: version }
  return {
    check: 'node',
    level: 'fail',
    text: `${version} is too old`,
    remedy: 'Install Node 24, or run `npm ci` in the clone.',
  }
}

/** Clones with filters and `--pathspec-from-file`, which the agent uses, came with 2.25. */
const oldestGit = [2, 25]

export async function checkGit(): Promise<Finding> {
  const answer = await run('git', ['--version']).then(
    ({ stdout }) => stdout,
    () => undefined,
  )
  const remedy = 'Install git: agents clone repositories with it.'
  if (answer === undefined) return { check: 'git', level: 'fail', text: 'not found', remedy }
  const [, major = 0, minor = 0] = (/(\d+)\.(\d+)/.exec(answer) ?? []).map(Number)
  const [needMajor = 0, needMinor = 0] = oldestGit
  const isNewEnough = major > needMajor || (major === needMajor && minor >= needMinor)
  const text = answer.trim().replace('git version ', '')
  return isNewEnough
    ? { check: 'git', level: 'ok', text }
    : { check: 'git', level: 'fail', text: `${text} is too old`, remedy: `Install ${oldestGit.join('.')} or newer.` }
}

export async function checkDataDir(env: NodeJS.ProcessEnv): Promise<Finding> {
  const { dataDir } = readServerOptions({}, env)
  const check = 'data folder'
  const found = await stat(dataDir).catch((error: NodeJS.ErrnoException) => error.code)
  if (typeof found !== 'object') {
    if (found !== 'ENOENT') {
      const remedy = 'Let this user read it, or name another one: --data-dir, OZ_DATA_DIR.'
      return { check, level: 'fail', text: `${dataDir} cannot be read (${found})`, remedy }
    }
    return { check, level: 'ok', text: `${dataDir} (made by the first start of a control plane here)` }
  }
  const uid = process.getuid?.()
  if (uid !== undefined && uid !== 0 && found.uid !== uid) {
    const remedy = 'Start the server as that user, or with another --data-dir.'
    return { check, level: 'warn', text: `${dataDir} belongs to user id ${found.uid}`, remedy }
  }
  return { check, level: 'ok', text: dataDir }
}

/** Enough for a database, a few clones and their builds; below the second figure PostgreSQL itself is at risk. */
const comfortableBytes = 5e9
const neededBytes = 5e8

export async function checkDisk(env: NodeJS.ProcessEnv): Promise<Finding> {
  const { dataDir } = readServerOptions({}, env)
  const folder = await nearestExisting(dataDir)
  const { bavail, bsize } = await statfs(folder)
  const free = bavail * bsize
  const text = `${(free / 1e9).toFixed(1)} GB free in ${folder}`
  if (free >= comfortableBytes) return { check: 'disk', level: 'ok', text }
  return {
    check: 'disk',
    level: free < neededBytes ? 'fail' : 'warn',
    text,
    remedy: 'Free some space before agents build there.',
  }
}

/** Where a worker of this user with the direct backend keeps what runs work in, unless it is told otherwise. */
export async function checkWorkspaces(env: NodeJS.ProcessEnv): Promise<Finding> {
  const check = 'workspaces'
  const { workspaceRoot } = directLayout({ direct: {}, env })
  const folder = await nearestExisting(workspaceRoot)
  try {
    await access(folder, constants.W_OK)
    const made = folder === workspaceRoot ? '' : ' (made by the first start of a worker here)'
    return { check, level: 'ok', text: `${workspaceRoot}${made}` }
  } catch {
    const remedy =
      'Name another folder in the worker’s config file (backend.direct.workspace_root), or start it as a user who may write there.'
    return { check, level: 'warn', text: `${folder} cannot be written, so no worker can work in it`, remedy }
  }
}

async function nearestExisting(folder: string): Promise<string> {
  const exists = await stat(folder).then(
    () => true,
    () => false,
  )
  return exists || dirname(folder) === folder ? folder : nearestExisting(dirname(folder))
}

export function checkUnshare(env: NodeJS.ProcessEnv): Finding {
  if (process.platform !== 'linux') return { check: 'unshare', level: 'ok', text: 'only used on Linux' }
  const missing = ['unshare', 'setpriv'].filter((program) => !isOnPath(program, env.PATH ?? ''))
  if (missing.length === 0) return { check: 'unshare', level: 'ok', text: 'found' }
  const text = `${missing.join(' and ')} not found`
  return { check: 'unshare', level: 'warn', text, remedy: 'Install util-linux: tasks are shut in with it.' }
}

function isOnPath(program: string, path: string): boolean {
  return [...path.split(delimiter), '/usr/sbin', '/usr/bin', '/sbin', '/bin'].some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

export async function checkIsolation(env: NodeJS.ProcessEnv, platform = process.platform): Promise<Finding> {
  const { kind, hidesProcesses, text } = await describeIsolation({ env })
  const check = 'isolation'
  if (kind === 'none') {
    const way = platform === 'linux' ? 'Run the worker as root, or allow user namespaces' : 'Only Linux shuts tasks in'
    return { check, level: 'warn', text, remedy: `${way}; until then give it only prompts that you trust.` }
  }
  if (hidesProcesses) return { check, level: 'ok', text }
  return {
    check,
    level: 'warn',
    text,
    remedy: 'Allow PID namespaces (in a container: --security-opt or --privileged).',
  }
}
