import { inspectContainer } from './containers.ts'
import type { Engine } from './engine.ts'
import { EngineFailure, isMissing } from './engine-failure.ts'

export interface Network {
  Id: string
  Name: string
  Driver: string
  Created: string
  Labels: Record<string, string> | null
  IPAM: { Config: { Subnet?: string; Gateway?: string }[] | null }
  /** Only of an inspected one: those that are connected, by id. */
  Containers?: Record<string, { Name: string }>
}

/**
 * A bridge. `subnet` as a CIDR; the engine chooses one without. Fails with 403 or 500 when it has none left, or when the one that was asked for is
 * taken: the words tell.
 */
export async function createNetwork(
  engine: Engine,
  {
    name,
    labels,
    subnet,
    signal,
  }: { name: string; labels: Record<string, string>; subnet?: string; signal?: AbortSignal },
): Promise<{ Id: string }> {
  // Names of networks are not unique unless one asks for it.
  const body = { Name: name, CheckDuplicate: true, Driver: 'bridge', Labels: labels }
  const IPAM = subnet === undefined ? undefined : { Config: [{ Subnet: subnet }] }
  return engine.json('POST', '/networks/create', { body: { ...body, IPAM }, signal })
}

/** undefined: there is none. */
export async function inspectNetwork(engine: Engine, name: string, signal?: AbortSignal): Promise<Network | undefined> {
  try {
    return await engine.json<Network>('GET', networkPath(name), { signal })
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}

/** Those that have all of the labels. */
export async function listNetworks(
  engine: Engine,
  { labels, signal }: { labels: string[]; signal?: AbortSignal },
): Promise<Network[]> {
  return engine.json('GET', '/networks', { query: { filters: { label: labels } }, signal })
}

/**
 * Fine when it is gone already. 403 while containers that run are connected. An engine that was killed while it removed a container may go on to count the
 * end of that, and refuse for ever: ends without a container are taken off first.
 */
export async function removeNetwork(engine: Engine, name: string, signal?: AbortSignal): Promise<void> {
  const remove = () => engine.json('DELETE', networkPath(name), { signal })
  try {
    await remove()
  } catch (error) {
    if (isMissing(error)) return
    const isRefused = error instanceof EngineFailure && error.status === 403
    if (!isRefused || !(await dropStaleEnds(engine, name, signal))) throw error
    await remove()
  }
}

/** False: there were none. */
async function dropStaleEnds(engine: Engine, name: string, signal?: AbortSignal): Promise<boolean> {
  const { Containers = {} } = (await inspectNetwork(engine, name, signal)) ?? {}
  let isDropped = false
  for (const { Name: container } of Object.values(Containers)) {
    if (await inspectContainer(engine, container, signal)) continue
    const body = { Container: container, Force: true }
    await engine.json('POST', `${networkPath(name)}/disconnect`, { body, signal, ok: [404] })
    isDropped = true
  }
  return isDropped
}

function networkPath(name: string): string {
  return `/networks/${encodeURIComponent(name)}`
}
