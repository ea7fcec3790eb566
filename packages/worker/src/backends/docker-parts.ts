import { AppError, describeError, messageOf, type TaskAssignment } from '@openoz/protocol'
import { taskCommand } from '../bundle/bundle-command.ts'
import { ensureBundleVolume } from '../bundle/bundle-volume.ts'
import { EngineFailure } from '../engine/engine-failure.ts'
import type { PulledImage } from '../engine/image-pull.ts'
import { type StepReporter, TaskFailure, type TaskStep } from './backend.ts'
import { engineTaskFailure } from './docker-exit.ts'
import type { DockerHost, DockerTaskContext } from './docker-host.ts'
import { imageVolumeName, labelsOf } from './docker-labels.ts'
import { ensureSidecarVolume, makeOwnSidecar, type SidecarWish, sidecarFailure, sidecarsOf } from './docker-sidecars.ts'
import type { TaskVolumes } from './docker-spec.ts'

/** What a container is made of: the task's image, the agent, sidecars. All at once, as each may take minutes on an engine that has none of it yet. */
export interface TaskParts {
  image: PulledImage
  /** Name of the volume that is mounted at /agent. */
  agent: string
  /** Before the arguments of `oz`. */
  command: string[]
  isForeignAgent: boolean
  sidecars: TaskVolumes['sidecars']
}

/** Of runs that name none, as in the reference. */
const lastResortImage = 'ubuntu:22.04'

/** An agent that is not ours brings this. */
const foreignEntrypoint = '/agent/entrypoint.sh'

function imageOf(assignment: TaskAssignment, defaultImage: string | undefined): { name: string; notice?: string } {
  const { environment, environment_id: environmentId } = assignment.task.agent_config_snapshot ?? {}
  const named = assignment.docker_image ?? environment?.docker_image
  if (named !== undefined) return { name: named }
  const name = defaultImage ?? lastResortImage
  if (environment === undefined && environmentId === undefined) return { name }
  return { name, notice: `The environment names no image; ${name} was taken.` }
}

export async function gatherParts(
  host: DockerHost,
  context: DockerTaskContext,
  { assignment, signal }: { assignment: TaskAssignment; signal: AbortSignal },
): Promise<TaskParts> {
  const { options, bundle } = host
  const { reporter } = context
  // Our own agent has our own worker's place; whoever says which one is asked for has the operator's word.
  const agentImage = options.sidecarImage ?? assignment.sidecar_image
  const wishes = sidecarsOf(assignment, { volumes: options.volumes, agentImage })
  const { name, notice } = imageOf(assignment, options.defaultImage)
  const others = new AbortController()
  const stop = AbortSignal.any([signal, others.signal])
  const all = [
    inStep(reporter, 'image_pull', async (progress) => {
      const image = await pull(host, name, { progress, signal: stop })
      return [image, [describeImage(name, image), notice, image.notice].filter((text) => text !== undefined).join(' ')]
    }),
    agentImage !== undefined || !bundle
      ? undefined
      : inStep(reporter, 'agent_bundle', async () => {
          const { engine, owner, shared } = host
          const { volume, wasFilled } = await ensureBundleVolume(shared, bundle, { engine, owner, signal: stop })
          return [volume, wasFilled ? 'Put on the engine, once for all tasks.' : undefined]
        }),
    wishes.length === 0
      ? []
      : inStep(reporter, 'sidecars', async (progress) => {
          const made = wishes.map((wish, index) =>
            prepareSidecar(host, context, { wish, index, progress, signal: stop }),
          )
          const sidecars = await together(made, others)
          return [sidecars, wishes.map(({ image, path }) => `${image} at ${path}`).join(', ')]
        }),
  ] as const
  try {
    const [image, agent, sidecars] = await together(all, others)
    const [foreign, ...rest] = agentImage === undefined ? [undefined, ...sidecars] : sidecars
    return {
      image,
      agent: agent ?? foreign?.volume ?? '',
      command: foreign || !bundle ? [foreignEntrypoint] : taskCommand(bundle.manifest),
      isForeignAgent: foreign !== undefined,
      sidecars: rest.filter((sidecar) => sidecar !== undefined),
    }
  } catch (error) {
    throw signal.aborted && !(error instanceof TaskFailure) ? signal.reason : error
  }
}

/** As `Promise.all`, but when it rejects nothing goes on: whichever fails first ends the others, and they are waited for. */
async function together<T extends readonly unknown[]>(
  work: T,
  others: AbortController,
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  try {
    return await Promise.all(work)
  } catch (error) {
    others.abort(error)
    await Promise.allSettled(work)
    throw error
  }
}

type Progress = Parameters<StepReporter['progress']>[1]
type TellProgress = (progress: Progress) => void

/** Tells of it from its beginning to its end, whichever that is. */
async function inStep<T>(
  reporter: StepReporter,
  step: TaskStep,
  work: (progress: TellProgress) => Promise<[T, string | undefined]>,
): Promise<T> {
  reporter.started(step)
  try {
    const [result, detail] = await work((progress) => reporter.progress(step, progress))
    reporter.completed(step, detail)
    return result
  } catch (error) {
    reporter.failed(step, messageOf(error))
    throw error
  }
}

async function pull(
  { puller, options, facts, engine }: DockerHost,
  name: string,
  { progress, signal }: { progress: TellProgress; signal: AbortSignal },
): Promise<PulledImage> {
  const { imagePullPolicy: policy } = options
  try {
    return await puller.ensure(name, { policy, platform: facts.platform, onProgress: progress, signal })
  } catch (error) {
    signal.throwIfAborted()
    throw imageFailure(error, engine.address)
  }
}

const invalidImage: readonly string[] = ['image_reference_invalid', 'image_wrong_platform']

function imageFailure(error: unknown, address: DockerHost['engine']['address']): unknown {
  if (error instanceof EngineFailure) return engineTaskFailure(error, address)
  if (!(error instanceof AppError)) return error
  const reason = invalidImage.includes(error.code) ? 'invalid_image' : 'image_pull'
  return new TaskFailure(reason, describeError(error.code, error.details), { code: error.code, cause: error })
}

function describeImage(name: string, { id, digest }: PulledImage): string {
  return `${name} (${(digest ?? id).slice(0, 19)}).`
}

async function prepareSidecar(
  host: DockerHost,
  { record, names }: DockerTaskContext,
  { wish, index, progress, signal }: { wish: SidecarWish; index: number; progress: TellProgress; signal: AbortSignal },
): Promise<TaskVolumes['sidecars'][number]> {
  const { engine, shared, owner, facts } = host
  const { image: name, path, isWritable } = wish
  const image = await pull(host, name, { progress, signal })
  const { platform } = facts
  try {
    if (!isWritable) {
      return { volume: await ensureSidecarVolume({ engine, shared, owner, platform, signal }, image), path, isWritable }
    }
    const volume = imageVolumeName(record, firstOwnSidecar + index)
    const labels = labelsOf(owner, record, 'image-volume')
    await makeOwnSidecar(engine, image, { volume, helper: `${names.helper}-${index}`, labels, platform, signal })
    return { volume, path, isWritable }
  } catch (error) {
    signal.throwIfAborted()
    throw sidecarFailure(name, error)
  }
}

/** Behind the volumes that an image declares. */
const firstOwnSidecar = 100
