import { randomBytes } from 'node:crypto'
import { chmod, mkdir, realpath, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, messageOf } from '@openoz/protocol'
import type { DockerOptions } from '../docker-options.ts'
import { readArchiveFile } from '../engine/archive-file.ts'
import { type ContainerDetails, removeContainer } from '../engine/containers.ts'
import type { Engine } from '../engine/engine.ts'
import type { EngineFacts } from '../engine/engine-check.ts'
import { createHelper } from '../engine/helper-container.ts'
import { inspectNetwork } from '../engine/networks.ts'
import { removeTree } from '../folder-removal.ts'
import type { TaskVolume } from '../task-volume.ts'
import { type LabelOwner, labelsOf } from './docker-labels.ts'
import { pathOnEngine } from './docker-own-container.ts'

/** What an operator should hear before the first task, and not from it. Each rejects with an AppError. */

export async function checkOptions(
  engine: Engine,
  { options, facts, signal }: { options: DockerOptions; facts: EngineFacts; signal: AbortSignal },
): Promise<void> {
  const { runtime, network } = options
  if (runtime !== undefined && !facts.runtimes.includes(runtime))
    throw new AppError('container_runtime_missing', { runtime, known: facts.runtimes.join(', ') })
  const isNamed = network !== 'none' && network !== 'isolated'
  if (isNamed && !(await inspectNetwork(engine, network, signal))) throw new AppError('network_missing', { network })
  await permittedVolumes(options, facts)
}

/**
 * What is mounted of the operator's volumes, where the folders are listed that may be: on an engine of this machine links are followed, and one that leads
 * elsewhere is what it leads to. Asked for each task, since a task that may write to one folder can put a link there in the place of another. Rejects with
 * `host_path_not_allowed`.
 */
export async function permittedVolumes(
  { volumes, allowedHostPaths }: Pick<DockerOptions, 'volumes' | 'allowedHostPaths'>,
  { isLocal }: Pick<EngineFacts, 'isLocal'>,
): Promise<TaskVolume[]> {
  if (allowedHostPaths === undefined) return volumes
  const real = async (path: string) => (isLocal ? await realPath(path) : path)
  const allowed = await Promise.all(allowedHostPaths.map(async (path) => (await real(path)) ?? path))
  return await Promise.all(
    volumes.map(async (volume) => {
      if (!volume.isPath) return volume
      const source = await real(volume.source)
      const isWithin = (folder: string) => source === folder || source?.startsWith(folder === '/' ? '/' : `${folder}/`)
      if (source !== undefined && allowed.some(isWithin)) return { ...volume, source }
      const list = allowedHostPaths.join(', ') || 'none'
      throw new AppError('host_path_not_allowed', { path: volume.source, allowed: list })
    }),
  )
}

/** What is not there the engine refuses. undefined: nobody can say what it is. */
async function realPath(path: string): Promise<string | undefined> {
  try {
    return await realpath(path)
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ENOENT' ? path : undefined
  }
}

/** As long as the system takes for the path of a socket, with the name of a task in it. */
const longestFolder = 107 - '/00000000-0000-0000-0000-000000000000/server.sock'.length

/**
 * Whether a folder of ours can be mounted into containers, which nothing but a try tells: the engine may be on another machine, in a virtual one, or have
 * us in a container. Resolves with how it is named there. Rejects with `relay_unavailable`.
 */
export async function probeRelayFolder(
  engine: Engine,
  { folder, own, owner, url }: { folder: string; own: ContainerDetails | undefined; owner: LabelOwner; url: string },
): Promise<(path: string) => string> {
  const unavailable = (problem: string, cause?: unknown) =>
    new AppError('relay_unavailable', { url, problem: problem.replace(/\.$/, '') }, { cause })
  if (folder.length > longestFolder)
    throw unavailable(`the path ${folder} is too long for a socket; name a shorter one (state_dir)`)
  const onEngine = (path: string) => pathOnEngine(path, own) ?? path
  if (own && pathOnEngine(folder, own) === undefined)
    throw unavailable(`this worker is a container, and ${folder} is in no volume of it`)
  const word = randomBytes(16).toString('hex')
  const probe = join(folder, `probe-${owner.instance}`)
  await mkdir(folder, { recursive: true, mode: 0o700 })
  await removeTree(probe)
  await mkdir(probe)
  let helper: string | undefined
  try {
    await chmod(probe, 0o755)
    await writeFile(join(probe, 'word'), word, { mode: 0o644 })
    const nobody = '00000000-0000-0000-0000-000000000000'
    const labels = labelsOf(owner, { task_id: nobody, execution_id: nobody }, 'helper')
    const mounts = [{ Type: 'bind' as const, Source: onEngine(probe), Target: '/probe', ReadOnly: true }]
    helper = await createHelper(engine, { name: `oz-probe-${owner.instance}`, labels, mounts })
    const seen = await readArchiveFile(engine, helper, { path: '/probe/word', maxBytes: 1024 })
    if (seen !== word) throw new Error('the engine has another folder of that name')
    return onEngine
  } catch (error) {
    if (error instanceof AppError) throw error
    throw unavailable(`${folder} means nothing to the engine (${messageOf(error)})`, error)
  } finally {
    if (helper !== undefined) await removeContainer(engine, helper).catch(() => {})
    await removeTree(probe).catch(() => {})
  }
}
