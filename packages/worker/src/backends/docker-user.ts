import { getArchive } from '../engine/containers.ts'
import type { Engine } from '../engine/engine.ts'
import { readTar } from '../engine/tar-text.ts'
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
  const entry = parsePasswd(await readText(engine, containerId, '/etc/passwd')).get(name)
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

async function readText(engine: Engine, containerId: string, path: string): Promise<string> {
  const stream = await getArchive(engine, containerId, { path })
  if (!stream) return ''
  for await (const { type, body } of readTar(stream, { maxBytes: maxFileBytes, maxEntries: 1 })) {
    if (type !== 'file') return ''
    const chunks: Buffer[] = []
    for await (const chunk of body) chunks.push(chunk)
    return Buffer.concat(chunks).toString('utf8')
  }
  return ''
}
