import { join } from 'node:path'
import { sleep } from '@openoz/machine'
import type { Logger } from 'pino'
import { listContainers, removeContainer } from '../engine/containers.ts'
import type { Engine } from '../engine/engine.ts'
import { EngineFailure, isConflict } from '../engine/engine-failure.ts'
import { emptyImage } from '../engine/helper-container.ts'
import { removeImage } from '../engine/images.ts'
import { listNetworks, removeNetwork } from '../engine/networks.ts'
import { listVolumes, removeVolume, type Volume } from '../engine/volumes.ts'
import { readInstallationId } from '../installation.ts'
import { isKnownHere } from '../task-folder.ts'
import { dockerFormer } from './docker-adopt.ts'
import { clearClaims } from './docker-homeless.ts'
import type { DockerHost } from './docker-host.ts'
import {
  bundleLabel,
  claimedBy,
  instanceLabel,
  isAlive,
  keepLabel,
  refsFromLabels,
  roleLabel,
  sidecarLabel,
  stateLabel,
  taskLabels,
  whoseIs,
} from './docker-labels.ts'
import { clearInstances, clearTemporary, createAttempts, sweepFolders } from './sweep-folders.ts'

/**
 * Clears what nobody answers for: what lies in the state folder (see `sweep-folders.ts`), then what this installation has made on the engine for tasks that
 * have no folder any more, and volumes for all tasks that no task needs. By our own labels alone: another installation's is never touched, whichever
 * worker id it has, nor is what a live worker of this state folder has made, nor what was kept on purpose.
 *
 * In the order container → network → volume, since each is refused while one before it has it.
 */
export async function sweepEngine(host: DockerHost): Promise<void> {
  const { stateDir, installationId, claimed } = host
  const attempt = createAttempts(host)
  await sweepFolders(host, dockerFormer(host), attempt)
  const scopes = [`${stateLabel}=${installationId}`, ...[...claimed.keys()].map((one) => `${instanceLabel}=${one}`)]
  for (const scope of scopes)
    await attempt('What no task has on the engine', () =>
      removeObjects(host, { labels: [scope], isWanted: (found) => isOrphan(host, found) }),
    )
  await attempt('Claims of what other workers left', () => clearClaims(host))
  await attempt('Volumes that no task needs', () => removeOldVolumes(host))
  await attempt('Temporary files', () => clearTemporary(stateDir, [[join(stateDir, 'relay'), /^probe-[0-9a-f-]{36}$/]]))
  await attempt('Instances of workers', () => clearInstances(host))
}

interface EngineObject {
  kind: 'container' | 'network' | 'volume'
  name: string
  labels: Record<string, string>
  /** On the engine's clock. */
  createdAt: Date
}

type RemovalHost = Pick<DockerHost, 'engine' | 'log'> & { leaving?: AbortSignal }

/** Removes those with all of the labels that are wanted. What is refused is logged, and left. Resolves with what is gone. */
async function removeObjects(
  host: RemovalHost,
  { labels, isWanted }: { labels: string[]; isWanted(found: EngineObject): Promise<boolean> },
): Promise<EngineObject[]> {
  const { engine, log, leaving } = host
  const gone: EngineObject[] = []
  for (const { list, remove } of kinds) {
    for (const found of await list(engine, labels)) {
      if (leaving?.aborted) return gone
      if (!(await isWanted(found))) continue
      const { kind, name } = found
      try {
        await insist(() => remove(engine, name), leaving)
        gone.push(found)
        const executionId = found.labels[taskLabels.execution]
        log.info({ [kind]: name, executionId }, `Removed a ${kind} that nobody has any more`)
      } catch (error) {
        log.warn({ error, [kind]: name }, `A ${kind} that nobody has any more could not be removed; tried again later`)
      }
    }
  }
  return gone
}

const kinds: {
  list(engine: Engine, labels: string[]): Promise<EngineObject[]>
  remove(engine: Engine, name: string): Promise<void>
}[] = [
  {
    list: async (engine, labels) =>
      (await listContainers(engine, { labels })).map(({ Id, Names, Labels, Created }) => ({
        kind: 'container',
        name: Names[0]?.slice(1) ?? Id,
        labels: Labels,
        createdAt: new Date(Created * 1_000),
      })),
    remove: removeContainer,
  },
  {
    list: async (engine, labels) =>
      (await listNetworks(engine, { labels })).map(({ Id, Labels, Created }) => ({
        kind: 'network',
        name: Id,
        labels: Labels ?? {},
        createdAt: new Date(Created),
      })),
    remove: removeNetwork,
  },
  {
    list: async (engine, labels) =>
      (await listVolumes(engine, { labels })).map(({ Name, Labels, CreatedAt }) => ({
        kind: 'volume',
        name: Name,
        labels: Labels ?? {},
        createdAt: new Date(CreatedAt ?? 0),
      })),
    remove: removeVolume,
  },
]

const refusals: readonly (number | undefined)[] = [403, 409]
const tries = 5
const againMs = 300

/** What had it is perhaps just being removed. */
async function insist(remove: () => Promise<void>, leaving: AbortSignal | undefined): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await remove()
    } catch (error) {
      const isRefused = error instanceof EngineFailure && refusals.includes(error.status)
      if (!isRefused || attempt === tries || leaving?.aborted) throw error
      await sleep(againMs, leaving ?? new AbortController().signal)
    }
  }
}

/** Longer than anything is made before somebody has it. */
const youngMs = 15 * 60_000

/** With the container of a task that was kept its volumes are. */
const keptRoles: readonly (string | undefined)[] = ['task', 'control', 'workspace', 'image-volume']

async function isOrphan(host: DockerHost, { kind, labels, createdAt }: EngineObject): Promise<boolean> {
  const { held, stateDir, instances, owner } = host
  const refs = refsFromLabels(labels)
  if (claimedBy(labels) !== undefined) return whoseIs(owner, labels) !== 'ours'
  // For all tasks.
  if (kind === 'volume' && !refs) return false
  if (labels[keepLabel] === 'true' && keptRoles.includes(labels[roleLabel])) return false
  // In this order: a task's folder is there before anything of it, and goes after all of it.
  if (refs && (held.has(refs.execution_id) || (await isKnownHere(stateDir, refs.execution_id)))) return false
  const instance = labels[instanceLabel]
  const isOld = Date.now() - createdAt.getTime() > youngMs
  if (instance === undefined || instance === owner.instance) return isOld
  return isAlive(instances, instance) ? !refs && isOld : true
}

/** Another worker of this state folder may be of the version that it is for; one that needs it fills it again. */
const oldBundleMs = 60 * 60_000
const oldSidecarMs = 7 * 24 * 60 * 60_000

async function removeOldVolumes(host: DockerHost): Promise<void> {
  const { engine, installationId, bundle, log } = host
  const labels = [`${stateLabel}=${installationId}`]
  for (const volume of await listVolumes(engine, { labels, dangling: true })) {
    if (!isUnneeded(volume, { bundleHash: bundle?.manifest.hash, now: Date.now() })) continue
    await removeVolume(engine, volume.Name)
    log.info({ volume: volume.Name }, 'Removed a volume for all tasks that none needs any more')
  }
}

/** Of a volume that no container has. */
export function isUnneeded(
  { Labels, CreatedAt }: Pick<Volume, 'Labels' | 'CreatedAt'>,
  { bundleHash, now }: { bundleHash: string | undefined; now: number },
): boolean {
  const ageMs = CreatedAt === undefined ? 0 : now - Date.parse(CreatedAt)
  const hash = Labels?.[bundleLabel]
  if (hash !== undefined) return hash !== bundleHash && ageMs > oldBundleMs
  return Labels?.[sidecarLabel] !== undefined && ageMs > oldSidecarMs
}

/**
 * For a machine that is no worker any more: everything that the installation of this state folder has on the engine, but for what was kept on purpose, and for
 * tasks whose folder is still there. Resolves with the names of the containers that stay, and of the volumes for all tasks that some container uses.
 */
export async function removeInstallation(
  engine: Engine,
  { stateDir, log }: { stateDir: string; log: Logger },
): Promise<{ kept: string[]; used: string[] }> {
  const labels = [`${stateLabel}=${await readInstallationId(stateDir)}`]
  const kept: string[] = []
  await removeObjects(
    { engine, log },
    {
      labels,
      async isWanted({ kind, name, labels: found }) {
        const executionId = refsFromLabels(found)?.execution_id
        const isMeant = found[keepLabel] === 'true' && keptRoles.includes(found[roleLabel])
        const stays = isMeant || (executionId !== undefined && (await isKnownHere(stateDir, executionId)))
        if (stays && kind === 'container') kept.push(name)
        return !stays
      },
    },
  )
  await removeImage(engine, emptyImage).catch((error: unknown) => {
    // Another installation has it.
    if (!isConflict(error)) throw error
  })
  const volumes = await listVolumes(engine, { labels })
  const used = volumes.filter(({ Labels }) => !refsFromLabels(Labels ?? {})).map(({ Name }) => Name)
  return { kept, used }
}
