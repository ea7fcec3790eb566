import { writeFile } from 'node:fs/promises'
import { identifyProcess } from '@openoz/machine'
import { z } from 'zod'
import { readArchiveFile } from '../engine/archive-file.ts'
import { inspectContainer, listContainers, removeContainer } from '../engine/containers.ts'
import type { Engine } from '../engine/engine.ts'
import { isConflict } from '../engine/engine-failure.ts'
import { createHelper } from '../engine/helper-container.ts'
import { listNetworks } from '../engine/networks.ts'
import type { TarEntry } from '../engine/tar-text.ts'
import { listVolumes } from '../engine/volumes.ts'
import { keepRoomForEnd } from '../task-end.ts'
import {
  isKnownHere,
  makeTaskFolder,
  removeTaskFolder,
  type TaskRecord,
  taskFolder,
  writeRecord,
} from '../task-folder.ts'
import type { TaskRefs } from './backend.ts'
import type { DockerHost } from './docker-host.ts'
import {
  claimedBy,
  claimLabels,
  claimName,
  instanceLabel,
  isAlive,
  keepLabel,
  namesOf,
  refsFromLabels,
  roleLabel,
  serverLabel,
  serverMark,
  taskLabels,
  whoseIs,
  workerContainerLabel,
} from './docker-labels.ts'
import { workspaceFolder } from './docker-spec.ts'

/**
 * Tasks of a worker that was a container and is gone with its state folder: the engine is all that knows of them. Who comes next under that worker id
 * takes them over, as it takes over what lies in a state folder:
 *
 *   a dead worker's container → claim (a container of a name that the engine gives once) → a folder here for each of its tasks → adopted, its instance
 *   named in our hello → nothing of the instance is left on the engine, and the control plane has handled that hello → the claim is removed
 *
 * A worker's container that is there, stopped or not, may be started again and comes back with its folder: its tasks are its own.
 */

/** In the container through which a task's volumes are filled, and outside of those: the task never sees it. */
const adoptionFile = 'adopt.json'
const adoption = z.object({ version: z.literal(1), token: z.string().optional() })
const maxAdoptionBytes = 64 * 1024

export function adoptionEntries({ token }: { token: string | undefined }): TarEntry[] {
  return [{ name: adoptionFile, body: JSON.stringify({ version: 1, token } satisfies z.infer<typeof adoption>) }]
}

interface Homeless {
  instance: string
  /** The worker's own. */
  container: string
}

/** Before tasks are adopted from the state folder. Never rejects: what fails is tried again. */
export async function claimHomeless(host: DockerHost): Promise<void> {
  const { engine, claimed, log } = host
  try {
    const tasks = await listContainers(engine, { labels: ofWorker(host) })
    for (const { instance, container } of await homelessOf(host, tasks)) {
      if (claimed.has(instance) || !(await claim(host, { instance, container }))) continue
      const left = tasks.filter(({ Labels }) => Labels[instanceLabel] === instance && Labels[roleLabel] === 'task')
      for (const { Labels, Created, State } of left) {
        const refs = refsFromLabels(Labels)
        if (refs)
          await takeIn(host, refs, {
            startedAt: new Date(Created * 1_000),
            isKept: Labels[keepLabel] === 'true',
            isLaunched: State !== 'created',
          })
      }
      // Not before: the hello names it from now on, and what it does not name of it is dead.
      claimed.set(instance, { isNamed: false })
      log.warn({ instance, container, tasks: left.length }, 'A worker’s container is gone; what it left is taken over')
    }
  } catch (error) {
    log.warn({ error }, 'What workers have left whose containers are gone could not be taken over; tried again')
  }
}

/** Of which there is nothing any more, so that nobody needs to be kept away. */
export async function clearClaims({ engine, claimed }: Pick<DockerHost, 'engine' | 'claimed'>): Promise<void> {
  for (const [instance, { isNamed }] of [...claimed]) {
    if (!isNamed) continue
    const labels = [`${instanceLabel}=${instance}`]
    const left = await Promise.all([
      listContainers(engine, { labels }),
      listNetworks(engine, { labels }),
      listVolumes(engine, { labels }),
    ])
    if (left.flat().length > 0) continue
    await removeContainer(engine, claimName(instance))
    claimed.delete(instance)
  }
}

function ofWorker({ owner }: Pick<DockerHost, 'owner'>): string[] {
  return [`${taskLabels.worker}=${owner.workerId}`, `${serverLabel}=${serverMark(owner.serverUrl)}`]
}

type Labelled = { Labels: Record<string, string> | null }

async function homelessOf(host: DockerHost, containers: Labelled[]): Promise<Homeless[]> {
  const { engine, owner } = host
  const labels = ofWorker(host)
  const all: Labelled[] = [
    ...containers,
    ...(await listNetworks(engine, { labels })),
    ...(await listVolumes(engine, { labels })),
  ]
  const found = new Map<string, string>()
  for (const { Labels } of all) {
    const { [instanceLabel]: instance, [workerContainerLabel]: container } = Labels ?? {}
    const claimedInstance = claimedBy(Labels ?? undefined)
    const whose = whoseIs(owner, Labels ?? undefined)
    // One that we had before this process: it goes on with what it names.
    if (claimedInstance !== undefined && whose === 'ours') found.set(claimedInstance, '')
    if (whose === 'same_worker' && instance !== undefined && container !== undefined) found.set(instance, container)
  }
  const homeless: Homeless[] = []
  for (const [instance, container] of found)
    if (container === '' || (await isGone(engine, container))) homeless.push({ instance, container })
  return homeless
}

/** For good: one that is stopped can be started again, whatever its restart policy. */
async function isGone(engine: Engine, container: string): Promise<boolean> {
  const found = await inspectContainer(engine, container)
  return !found || found.State.Status === 'dead'
}

/** False: another worker has it. */
async function claim({ engine, owner, instances }: DockerHost, { instance }: Homeless): Promise<boolean> {
  const name = claimName(instance)
  for (;;) {
    try {
      await createHelper(engine, { name, labels: claimLabels(owner, instance), mounts: [] })
      return true
    } catch (error) {
      if (!isConflict(error)) throw error
    }
    const other = await inspectContainer(engine, name)
    if (!other) continue
    const labels = other.Config.Labels ?? {}
    if (whoseIs(owner, labels) === 'ours') {
      const holder = labels[instanceLabel]
      return holder === undefined || holder === owner.instance || !isAlive(instances, holder)
    }
    const container = labels[workerContainerLabel]
    if (container === undefined || !(await isGone(engine, container))) return false
    // By its id: whoever was faster has one of the same name by now.
    await removeContainer(engine, other.Id)
  }
}

/** As if it lay here since its start. */
async function takeIn(
  host: DockerHost,
  refs: TaskRefs,
  { startedAt, isKept, isLaunched }: { startedAt: Date; isKept: boolean; isLaunched: boolean },
): Promise<void> {
  const { stateDir, worker, backend, instances, engine } = host
  if (await isKnownHere(stateDir, refs.execution_id)) return
  const token = await readToken(engine, namesOf(refs).helper)
  const paths = taskFolder(stateDir, refs.execution_id)
  const lock = await makeTaskFolder(paths)
  try {
    const record: TaskRecord = {
      version: 1,
      worker_id: worker.workerId,
      server_url: worker.serverUrl,
      ...refs,
      backend,
      workspace: workspaceFolder,
      removes_workspace: !isKept,
      worker: identifyProcess(process.pid) ?? null,
      instance: instances.own,
      process: null,
      is_launched: isLaunched,
      started_at: startedAt.toISOString(),
    }
    if (token !== undefined) await writeFile(paths.token, token, { mode: 0o600, flag: 'wx' })
    await keepRoomForEnd(paths)
    await writeRecord(paths, record)
  } catch (error) {
    await removeTaskFolder(paths).catch(() => {})
    throw error
  } finally {
    lock.release()
  }
}

/** undefined: its last events cannot be delivered, but its end can be told. */
async function readToken(engine: Engine, helper: string): Promise<string | undefined> {
  const text = await readArchiveFile(engine, helper, { path: `/${adoptionFile}`, maxBytes: maxAdoptionBytes })
  return text === undefined ? undefined : adoption.parse(JSON.parse(text)).token
}
