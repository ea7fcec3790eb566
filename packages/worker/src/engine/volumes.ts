import type { Engine } from './engine.ts'
import { isMissing } from './engine-failure.ts'

export interface Volume {
  Name: string
  Driver: string
  /** On the engine's machine. */
  Mountpoint: string
  CreatedAt?: string
  Labels: Record<string, string> | null
}

/** An existing one is left as it is and resolved with, its own labels included: look at them before using it. */
export async function createVolume(
  engine: Engine,
  { name, labels, signal }: { name: string; labels: Record<string, string>; signal?: AbortSignal },
): Promise<Volume> {
  return engine.json('POST', '/volumes/create', { body: { Name: name, Labels: labels }, signal })
}

/** undefined: there is none. */
export async function inspectVolume(engine: Engine, name: string, signal?: AbortSignal): Promise<Volume | undefined> {
  try {
    return await engine.json<Volume>('GET', volumePath(name), { signal })
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}

/** Those that have all of the labels. `dangling`: only those that no container has. */
export async function listVolumes(
  engine: Engine,
  { labels, dangling, signal }: { labels: string[]; dangling?: boolean; signal?: AbortSignal },
): Promise<Volume[]> {
  const filters = { label: labels, ...(dangling !== undefined && { dangling: [String(dangling)] }) }
  const answer = await engine.json<{ Volumes: Volume[] | null }>('GET', '/volumes', { query: { filters }, signal })
  return answer.Volumes ?? []
}

/** Fine when it is gone already. 409 while a container has it. */
export async function removeVolume(engine: Engine, name: string, signal?: AbortSignal): Promise<void> {
  try {
    await engine.json('DELETE', volumePath(name), { signal, timeoutMs: slowMs })
  } catch (error) {
    if (!isMissing(error)) throw error
  }
}

/** It may hold a whole checkout with what was built in it. */
const slowMs = 10 * 60_000

function volumePath(name: string): string {
  return `/volumes/${encodeURIComponent(name)}`
}
