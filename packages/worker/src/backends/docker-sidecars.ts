import type { IncomingMessage } from 'node:http'
import { posix } from 'node:path'
import { agentFolder, describeError, messageOf, type TaskAssignment } from '@openoz/protocol'
import type { SharedVolumes } from '../bundle/shared-volume.ts'
import type { DockerOptions } from '../docker-options.ts'
import { createContainer, putArchive, removeContainer } from '../engine/containers.ts'
import type { Engine } from '../engine/engine.ts'
import { createHelper, volumeMount } from '../engine/helper-container.ts'
import { createVolume } from '../engine/volumes.ts'
import { TaskFailure } from './backend.ts'
import { sharedLabels, sharedNames, sidecarLabel } from './docker-labels.ts'
import { controlFolder, relayFolder, workspaceFolder } from './docker-spec.ts'

/**
 * Sidecars: images of which a task gets the files. Each is unpacked once per engine into a volume named by the image's id, which tasks mount read-only;
 * one that a task may write to is unpacked for that task alone.
 */
export interface SidecarWish {
  image: string
  path: string
  isWritable: boolean
}

/** Throws a TaskFailure for a place that is none, or is taken. `agentImage`: one that takes the place of our own agent. */
export function sidecarsOf(
  assignment: Pick<TaskAssignment, 'additional_sidecars'>,
  { volumes, agentImage }: Pick<DockerOptions, 'volumes'> & { agentImage?: string },
): SidecarWish[] {
  const taken = new Set(volumes.map(({ target }) => target))
  const wishes = (assignment.additional_sidecars ?? []).map(({ image, mount_path: place, read_write: isWritable }) => {
    const path = place === '/' ? place : posix.normalize(place).replace(/\/+$/, '')
    const problem = problemOf(image, place, path) ?? (taken.has(path) ? 'something else is mounted there' : undefined)
    if (problem !== undefined) {
      const message = describeError('sidecar_mount_invalid', { image, path: place, problem })
      throw new TaskFailure('sidecar_prep', message, { code: 'sidecar_mount_invalid' })
    }
    taken.add(path)
    return { image, path, isWritable: isWritable ?? false }
  })
  return agentImage === undefined ? wishes : [{ image: agentImage, path: agentFolder, isWritable: false }, ...wishes]
}

function problemOf(image: string, place: string, path: string): string | undefined {
  if (image.trim() === '') return 'no image is named'
  if (!place.startsWith('/')) return 'it is not an absolute path'
  if (path === '/') return 'that is the container’s own root'
  const own = [workspaceFolder, agentFolder, controlFolder, relayFolder]
  const owner = own.find((folder) => path === folder || (folder !== workspaceFolder && path.startsWith(`${folder}/`)))
  return owner === undefined ? undefined : `${owner} is the task’s own place`
}

interface SidecarParts {
  engine: Engine
  shared: SharedVolumes
  owner: { installationId: string; version: string }
  platform: string
  signal?: AbortSignal
}

/** Resolves with the volume that all tasks share. */
export async function ensureSidecarVolume(
  { engine, shared, owner, platform, signal }: SidecarParts,
  image: { id: string },
): Promise<string> {
  const names = sharedNames('sidecar', image.id)
  const labels = { ...sharedLabels(owner), [sidecarLabel]: image.id }
  await shared.ensure(
    {
      ...names,
      labels,
      mark: `${image.id}\n`,
      fill: ({ id, place }) => copyFiles(engine, image.id, { id, place, labels, platform }),
    },
    signal,
  )
  return names.volume
}

/**
 * For one task alone. `helper`: the name of a container that has the volume while it is filled. Rejects with the signal's reason, and nothing is made any
 * more then; what was made has the task's labels.
 */
export async function makeOwnSidecar(
  engine: Engine,
  image: { id: string },
  {
    volume,
    helper,
    labels,
    platform,
    signal,
  }: { volume: string; helper: string; labels: Record<string, string>; platform: string; signal: AbortSignal },
): Promise<void> {
  await createVolume(engine, { name: volume, labels })
  signal.throwIfAborted()
  const id = await createHelper(engine, { name: helper, labels, mounts: [volumeMount(volume, '/files')] })
  try {
    signal.throwIfAborted()
    await copyFiles(engine, image.id, { id, place: '/files', labels, platform, signal })
  } finally {
    await removeContainer(engine, id)
  }
}

async function copyFiles(
  engine: Engine,
  image: string,
  {
    id,
    place,
    labels,
    platform,
    signal,
  }: { id: string; place: string; labels: Record<string, string>; platform: string; signal?: AbortSignal },
): Promise<void> {
  // Never started: only its files are wanted.
  const source = { Image: image, Entrypoint: [], Cmd: ['/none'], Labels: labels, HostConfig: { NetworkMode: 'none' } }
  const { Id: container } = await createContainer(engine, source, { name: `${id.slice(0, 24)}-files`, platform })
  try {
    const archive: IncomingMessage = await engine.stream('GET', `/containers/${container}/export`, {
      signal,
    })
    try {
      await putArchive(engine, id, { path: place, archive, signal })
    } finally {
      archive.destroy()
    }
  } finally {
    await removeContainer(engine, container)
  }
}

export function sidecarFailure(image: string, error: unknown): TaskFailure {
  if (error instanceof TaskFailure) return error
  const message = describeError('sidecar_unusable', { image, problem: messageOf(error).replace(/\.$/, '') })
  return new TaskFailure('sidecar_prep', message, { code: 'sidecar_unusable', cause: error })
}
