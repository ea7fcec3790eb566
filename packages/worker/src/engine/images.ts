import type { Readable } from 'node:stream'
import { asFailure, type Engine } from './engine.ts'
import { EngineFailure, isMissing } from './engine-failure.ts'
import { jsonLines } from './json-lines.ts'

export interface ImageDetails {
  /** "sha256:…" */
  Id: string
  RepoTags: string[] | null
  /** "NAME@sha256:…", of registries that it came from or went to. */
  RepoDigests: string[] | null
  Os?: string
  Architecture?: string
  Variant?: string
  Config: ImageConfig | null
}

export interface ImageConfig {
  User?: string
  Env?: string[] | null
  WorkingDir?: string
  Volumes?: Record<string, object> | null
  Entrypoint?: string[] | null
  Cmd?: string[] | null
  Labels?: Record<string, string> | null
}

/** By name or id; undefined: the engine has no such image. */
export async function inspectImage(
  engine: Engine,
  image: string,
  signal?: AbortSignal,
): Promise<ImageDetails | undefined> {
  try {
    // A name may have slashes, and they stay.
    return await engine.json<ImageDetails>('GET', `/images/${encodeURI(image)}/json`, { signal })
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}

/** Makes an image of one layer from a tar archive of its files; an empty archive makes an empty one. Resolves with its id. */
export async function importImage(
  engine: Engine,
  {
    repository,
    tag,
    archive,
    labels = {},
    signal,
  }: {
    repository: string
    tag: string
    archive: Buffer | Readable
    labels?: Record<string, string>
    signal?: AbortSignal
  },
): Promise<string> {
  const changes = Object.entries(labels).map(
    ([name, value]) => `LABEL ${JSON.stringify(name)}=${JSON.stringify(value)}`,
  )
  const query = { fromSrc: '-', repo: repository, tag, changes: changes.join('\n') || undefined }
  const request = 'POST /images/create'
  const answer = await engine.stream('POST', '/images/create', { query, archive, signal })
  try {
    let id: string | undefined
    for await (const line of jsonLines(answer)) {
      if (typeof line.error === 'string') throw new EngineFailure(request, line.error, { status: 500 })
      if (typeof line.status === 'string' && line.status.startsWith('sha256:')) id = line.status
    }
    if (id === undefined) throw new EngineFailure(request, 'it made no image', { status: 500 })
    return id
  } catch (error) {
    signal?.throwIfAborted()
    throw asFailure(request, error)
  }
}

/** Fine when it is gone already. 409 while a container uses it. */
export async function removeImage(engine: Engine, image: string, signal?: AbortSignal): Promise<void> {
  try {
    await engine.json('DELETE', `/images/${encodeURI(image)}`, { signal })
  } catch (error) {
    if (!isMissing(error)) throw error
  }
}
