import { readArchiveFile } from '../engine/archive-file.ts'
import type { Engine } from '../engine/engine.ts'
import { TaskFailure } from './backend.ts'

export interface ContainerUser {
  uid: number
  gid: number
}

const maxFileBytes = 1024 * 1024

/**
 * Who a container runs as, from what its image names: "", "1000", "1000:1000", "node", "node:staff". A name is looked up in the image's own /etc/passwd,
 * as the engine does it. Rejects with a TaskFailure for one that is not there: the engine would not start it.
 */
export async function userOf(engine: Engine, containerId: string, user = ''): Promise<ContainerUser> {
  const [name = '', group = ''] = user.split(':')
  if (name === '') return { uid: 0, gid: 0 }
  if (isNumber(name)) return { uid: Number(name), gid: isNumber(group) ? Number(group) : 0 }
  const text = await readArchiveFile(engine, containerId, { path: '/etc/passwd', maxBytes: maxFileBytes })
  const entry = parsePasswd(text ?? '').get(name)
  if (!entry)
    throw new TaskFailure(
      'container_create',
      `The image wants to run as the user ${JSON.stringify(name.slice(0, 64))}, whom its /etc/passwd does not have.`,
    )
  // Files are for the user alone: which group is theirs decides nothing.
  return { uid: entry.uid, gid: isNumber(group) ? Number(group) : entry.gid }
}

function isNumber(text: string): boolean {
  return /^\d{1,10}$/.test(text)
}

export function parsePasswd(text: string): Map<string, ContainerUser> {
  const users = new Map<string, ContainerUser>()
  for (const line of text.split('\n')) {
    const [name = '', , uid = '', gid = ''] = line.split(':')
    if (isNumber(uid) && isNumber(gid) && !users.has(name)) users.set(name, { uid: Number(uid), gid: Number(gid) })
  }
  return users
}
