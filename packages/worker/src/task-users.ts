import { readdirSync, readFileSync } from 'node:fs'
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { endProcessTree, findMarked, findProcesses } from '@openoz/machine'
import { AppError } from '@openoz/protocol'
import { stateVariable } from './installation.ts'
import { taskFolder } from './task-folder.ts'

/**
 * Users that tasks have to themselves, where the worker runs as root. They need no entry in /etc/passwd. The range is the one that systemd
 * keeps for services of the same kind (DynamicUser), so no person and no package owns one.
 *
 * A user is taken by a file in `<state>/users/`, made in one step, so that two workers on one machine never give out the same one. It is
 * given back when nothing of the task is left; after a crash by the sweep.
 */
const firstUser = 61_184
const lastUser = 65_519

export async function takeTaskUser(stateDir: string, executionId: string): Promise<number> {
  const folder = usersFolder(stateDir)
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const busy = usersOfProcesses()
  const count = lastUser - firstUser + 1
  // Starting anywhere makes it unlikely that a task meets files that the last one of its user left in a shared folder.
  const start = Math.floor(Math.random() * count)
  for (let step = 0; step < count; step++) {
    const uid = firstUser + ((start + step) % count)
    if (busy.has(uid)) continue
    try {
      await writeFile(join(folder, String(uid)), executionId, { flag: 'wx', mode: 0o600 })
      return uid
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
    }
  }
  throw new AppError('workspace_root_not_writable', { folder: stateDir, problem: 'every task user is taken' })
}

/** Nothing when it is another execution's by now. */
export async function returnTaskUser(stateDir: string, uid: number, executionId: string): Promise<void> {
  const file = join(usersFolder(stateDir), String(uid))
  const owner = await readFile(file, 'utf8').catch(() => undefined)
  if (owner === executionId) await rm(file, { force: true })
}

/**
 * Gives back the users of executions that have no folder any more, and ends what still runs as one: an execution's folder is made before its user is
 * taken.
 */
export async function returnUsersOfNobody(stateDir: string, installationId: string): Promise<void> {
  const folder = usersFolder(stateDir)
  for (const name of await readdir(folder).catch(() => [])) {
    const uid = Number(name)
    const file = join(folder, name)
    const owner = await readFile(file, 'utf8').catch(() => undefined)
    if (owner === undefined || !(uid >= firstUser && uid <= lastUser)) continue
    if (owner === '' || (await stat(taskFolder(stateDir, owner).folder).catch(() => undefined)) !== undefined) continue
    if (await isUserOurs(uid, installationId)) {
      const { survivors } = await endProcessTree({ uid }, 0)
      if (survivors.length > 0) continue
    }
    await rm(file, { force: true })
  }
}

/**
 * Another installation may have given out the same user meanwhile, since a user without processes looks free: then its tasks say so. Their word alone
 * does not count, or a task could keep its own from being ended: a process of root's must stand behind it, the shim or the worker that runs a hook.
 */
export async function isUserOurs(uid: number, installationId: string): Promise<boolean> {
  if (process.getuid?.() !== 0 || uid === process.getuid()) return false
  const [own, marked] = await Promise.all([findProcesses({ uid }), findMarked(stateVariable)])
  const pids = new Set(own.map(({ pid }) => pid))
  const claims = marked.filter(({ process, value }) => pids.has(process.pid) && !value.startsWith(`${installationId}/`))
  const isBacked = ({ process: { ppid }, value }: (typeof claims)[number]) =>
    (ppid !== 1 && ppid !== process.pid && realUserOf(ppid) === 0) ||
    marked.some((other) => other.value === value && realUserOf(other.process.pid) === 0)
  return !claims.some(isBacked)
}

function usersFolder(stateDir: string): string {
  return join(stateDir, 'users')
}

/** Read one after the other, on purpose: asynchronously each of these small files takes four trips to another thread, and a task waits. */
function usersOfProcesses(): Set<number> {
  const users = new Set<number>()
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      users.add(readRealUser(pid))
    } catch {
      // It ended while we looked.
    }
  }
  return users
}

function readRealUser(pid: number | string): number {
  return Number(/^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
}

function realUserOf(pid: number): number | undefined {
  try {
    return readRealUser(pid)
  } catch {
    return undefined
  }
}
