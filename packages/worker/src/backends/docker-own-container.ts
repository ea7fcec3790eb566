import { readFile } from 'node:fs/promises'
import { posix } from 'node:path'
import { type ContainerDetails, inspectContainer } from '../engine/containers.ts'
import type { Engine } from '../engine/engine.ts'

/**
 * The container that this worker runs in, if it is one of the engine's. Then a path means something else to the engine than to us, and what of ours is
 * mounted from its machine can be named there.
 */
export async function findOwnContainer(engine: Engine, signal?: AbortSignal): Promise<ContainerDetails | undefined> {
  const text = await readFile('/proc/self/mountinfo', 'utf8').catch(() => '')
  for (const id of containerIds(text)) {
    const found = await inspectContainer(engine, id, signal).catch(() => undefined)
    if (found) return found
  }
  return undefined
}

/** The engine mounts files of its own over /etc/hostname and such, from the folder of the container. Its machine sees other mounts in those folders. */
export function containerIds(mountinfo: string): string[] {
  const mounts = mountinfo.matchAll(/\/containers\/([0-9a-f]{64})\/(hostname|hosts|resolv\.conf) \/etc\/\2 /g)
  return [...new Set([...mounts].map(([, id = '']) => id))]
}

/** What a path of ours is on the engine's machine; undefined: nothing there. */
export function pathOnEngine(path: string, own: Pick<ContainerDetails, 'Mounts'> | undefined): string | undefined {
  if (!own) return path
  const mount = own.Mounts.filter(({ Type }) => Type === 'bind' || Type === 'volume')
    .filter(({ Destination: place }) => path === place || path.startsWith(place === '/' ? '/' : `${place}/`))
    .sort((one, other) => other.Destination.length - one.Destination.length)[0]
  return mount && posix.join(mount.Source, path.slice(mount.Destination.length))
}
