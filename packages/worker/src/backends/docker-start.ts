import { writeFile } from 'node:fs/promises'
import { identifyProcess } from '@openoz/machine'
import { AppError, type TaskAssignment } from '@openoz/protocol'
import { aborted } from '../aborted.ts'
import { withPreloadAside } from '../bundle/image-preload.ts'
import { createContainer, putArchive } from '../engine/containers.ts'
import { EngineFailure } from '../engine/engine-failure.ts'
import { createHelper, volumeMount } from '../engine/helper-container.ts'
import { tarOf } from '../engine/tar-text.ts'
import { createVolume } from '../engine/volumes.ts'
import { launchArguments } from '../launch-command.ts'
import { keepRoomForEnd } from '../task-end.ts'
import { makeTaskFolder, removeTaskFolder, type TaskRecord, taskFolder, writeRecord } from '../task-folder.ts'
import { secretsOf } from '../task-secrets.ts'
import { type StartOptions, type StepReporter, TaskFailure } from './backend.ts'
import { beginContainer } from './docker-begin.ts'
import { permittedVolumes } from './docker-check.ts'
import { containerEnvironment, controlEntries, controlPaths, tokenOf } from './docker-environment.ts'
import { createFailure, engineTaskFailure } from './docker-exit.ts'
import { fenceFormerExecutions } from './docker-fence.ts'
import { adoptionEntries } from './docker-homeless.ts'
import { contextOf, type DockerHost, type DockerTaskContext } from './docker-host.ts'
import { imageVolumeName, labelsOf, type ObjectRole } from './docker-labels.ts'
import { makeTaskNetwork } from './docker-network.ts'
import { gatherParts, type TaskParts } from './docker-parts.ts'
import { relaySocketName } from './docker-relay.ts'
import { type ContainerLimits, limitsOf } from './docker-shape.ts'
import {
  containerSpec,
  controlFolder,
  imageVolumePaths,
  mountsEngineSocket,
  relayFolder,
  type TaskVolumes,
  workspaceFolder,
} from './docker-spec.ts'
import type { DockerTask } from './docker-task.ts'
import { userOf } from './docker-user.ts'

/**
 * The steps of a task's start: folder → (image ∥ agent ∥ sidecars) → volumes → container ∥ network → its files → (claim) → fence → start.
 *
 * Everything on the engine has names and labels of the execution: whatever this has made when it fails, or is killed, is found by them. An archive call
 * and a network take 100 ms each, everything else a few: so there is one archive on the way, beside the network. Calls that make something are not
 * broken off: what the engine makes after nobody waits for it any more would be left.
 */

/** Record and lock; leaves nothing behind when it rejects. */
export async function prepareTask(
  host: DockerHost,
  assignment: TaskAssignment,
  reporter: StepReporter,
): Promise<DockerTaskContext> {
  const { worker, stateDir, held, instances, network } = host
  const { task_id: taskId, execution_id: executionId } = assignment
  const token = tokenOf(assignment)
  const paths = taskFolder(stateDir, executionId)
  const lock = await makeTaskFolder(paths)
  held.hold(executionId, { lock })
  try {
    const record: TaskRecord = {
      version: 1,
      worker_id: worker.workerId,
      server_url: worker.serverUrl,
      task_id: taskId,
      execution_id: executionId,
      backend: host.backend,
      workspace: workspaceFolder,
      removes_workspace: worker.cleanup,
      worker: identifyProcess(process.pid) ?? null,
      instance: instances.own,
      process: null,
      started_at: new Date().toISOString(),
    }
    const secrets = [...secretsOf(assignment, worker.apiKey), ...network.secrets]
    const context = contextOf(host, { record, token, secrets, reporter })
    await keepRoomForEnd(paths)
    await writeRecord(paths, record)
    if (token !== undefined) await writeFile(paths.token, token, { mode: 0o600, flag: 'wx' })
    held.hold(executionId, { lock, context })
    return context
  } catch (error) {
    held.forget(executionId)
    await removeTaskFolder(paths).catch(() => {})
    throw error
  }
}

export async function launchTask(
  host: DockerHost,
  context: DockerTaskContext,
  { assignment, claimed, signal }: StartOptions & { assignment: TaskAssignment },
): Promise<DockerTask> {
  const { worker, facts } = host
  const { reporter, record } = context
  const limits = limitsOf(assignment.instance_shape, { facts, workerId: worker.workerId })
  const parts = await gatherParts(host, context, { assignment, signal })
  signal.throwIfAborted()
  reporter.started('container')
  const making = makeContainer(host, context, { assignment, parts, limits })
  const fencing = fenceOnceClaimed(host, { record, claimed, signal })
  // Told once the container is there, and not at all when it cannot be made: a claim may never be answered.
  fencing.catch(() => {})
  const containerId = await making.catch((error: unknown) => {
    reporter.failed('container', error instanceof Error ? error.message : 'unknown error')
    throw error
  })
  reporter.completed('container', describeContainer(host, context, limits))
  await fencing
  signal.throwIfAborted()
  return await beginContainer(host, context, containerId)
}

async function fenceOnceClaimed(
  host: DockerHost,
  { record, claimed, signal }: StartOptions & { record: TaskRecord },
): Promise<void> {
  // An offer that was withdrawn meanwhile, perhaps because we hung, is somebody else's work by now.
  await Promise.race([claimed, aborted(signal)])
  signal.throwIfAborted()
  await host.alone(() => fenceFormerExecutions(host, record))
}

interface ContainerInput {
  assignment: TaskAssignment
  parts: TaskParts
  limits: ContainerLimits | undefined
}

async function makeContainer(host: DockerHost, context: DockerTaskContext, input: ContainerInput): Promise<string> {
  const { engine, owner, options, relay } = host
  const { record, names } = context
  const labels = (role: ObjectRole) => labelsOf(owner, record, role)
  const network =
    options.network === 'isolated'
      ? makeTaskNetwork(engine, { name: names.network, labels: labels('network'), pool: options.networkPool })
      : Promise.resolve()
  const filled = (async () => {
    const volumes = await makeVolumes(host, context, input.parts)
    const relayed = relay?.onEngine(await relay.relay.open(record.execution_id))
    const [container, helper] = await Promise.allSettled([
      createTaskContainer(host, context, { ...input, volumes, relay: relayed }),
      createFiller(host, context),
    ])
    if (container.status === 'rejected') throw container.reason
    if (helper.status === 'rejected') throw helper.reason
    const containerId = container.value
    for (const volume of sharedVolumesOf(input.parts))
      if (!(await host.shared.isSame(volume)))
        throw new TaskFailure('container_create', `The volume ${volume} was removed from the engine just now.`)
    await fillVolumes(host, context, { ...input, containerId, helper: helper.value })
    return containerId
  })()
  const [made, container] = await Promise.allSettled([network, filled])
  if (made.status === 'rejected') throw asFailure(made.reason, host)
  if (container.status === 'rejected') throw asFailure(container.reason, host)
  return container.value
}

function asFailure(error: unknown, { engine }: DockerHost): unknown {
  return error instanceof EngineFailure ? engineTaskFailure(error, engine.address) : error
}

/** Of whatever kind its agent is, and those sidecars that are not the task's own. */
function sharedVolumesOf({ agent, sidecars }: TaskParts): string[] {
  return [agent, ...sidecars.filter(({ isWritable }) => !isWritable).map(({ volume }) => volume)]
}

/** With labels: one that the engine makes by itself has none, and outlives whoever knew of it. */
async function makeVolumes(
  { engine, owner, options, shared }: DockerHost,
  { record, names }: DockerTaskContext,
  parts: TaskParts,
): Promise<TaskVolumes> {
  const { image, agent, sidecars } = parts
  const taken = [...options.volumes.map(({ target }) => target), ...sidecars.map(({ path }) => path)]
  const paths = imageVolumePaths(image.config, [workspaceFolder, controlFolder, relayFolder, '/agent', ...taken])
  const ofImage = paths.map((path, index) => ({ volume: imageVolumeName(record, index + 1), path }))
  const wanted: [string, ObjectRole][] = [
    [names.control, 'control'],
    [names.workspace, 'workspace'],
    ...ofImage.map(({ volume }): [string, ObjectRole] => [volume, 'image-volume']),
  ]
  await Promise.all(
    wanted.map(async ([name, role]) => {
      const labels = labelsOf(owner, record, role)
      const { Labels: found } = await createVolume(engine, { name, labels })
      const isOurs = Object.entries(labels).every(([label, value]) => found?.[label] === value)
      if (!isOurs)
        throw new TaskFailure('container_create', `A volume ${name} that is not this task’s is on the engine already.`)
    }),
  )
  const labels = Object.fromEntries(sharedVolumesOf(parts).map((volume) => [volume, shared.labelsOf(volume)]))
  for (const { volume, isWritable } of sidecars)
    if (isWritable) labels[volume] = labelsOf(owner, record, 'image-volume')
  return { agent, control: names.control, workspace: names.workspace, sidecars, ofImage, labels }
}

async function createTaskContainer(
  host: DockerHost,
  { record, names }: DockerTaskContext,
  { assignment, parts, limits, volumes, relay }: ContainerInput & { volumes: TaskVolumes; relay: string | undefined },
): Promise<string> {
  const { engine, owner, options, worker, network, facts } = host
  const { image, command, isForeignAgent } = parts
  const serverRootUrl =
    relay === undefined || isForeignAgent ? worker.serverRootUrl : `unix:${relayFolder}/${relaySocketName}`
  const hasMcp = assignment.task.agent_config_snapshot?.mcp_servers !== undefined
  const mcpFile = hasMcp ? controlPaths.mcp : undefined
  const configured = worker.taskEnvironment
  const environment = containerEnvironment({ assignment, network, serverRootUrl, configured, isForeignAgent })
  const permitted = await permittedVolumes(options, facts).catch((error: unknown) => {
    if (!(error instanceof AppError)) throw error
    throw new TaskFailure('volume_mount', error.message, { code: error.code, cause: error })
  })
  const spec = containerSpec({
    image,
    command: [...command, ...launchArguments(assignment, { ...worker, serverRootUrl, mcpFile })],
    environment: isForeignAgent ? environment : withPreloadAside(environment, image.config.Env),
    labels: labelsOf(owner, record, 'task'),
    options: { ...options, volumes: permitted },
    network: options.network === 'isolated' ? names.network : options.network,
    volumes,
    relay,
    limits,
  })
  try {
    return (await createContainer(engine, spec, { name: names.container, platform: facts.platform })).Id
  } catch (error) {
    // Never the request: it holds the task's variables.
    if (error instanceof EngineFailure && error.status !== undefined) throw createFailure(error, engine.address)
    throw error
  }
}

/** A container of its own, to fill volumes through: into one with a read-only root the engine puts nothing, and mount points get an owner only from above them. */
function createFiller({ engine, owner }: DockerHost, { record, names }: DockerTaskContext): Promise<string> {
  const mounts = [volumeMount(names.control, controlFolder), volumeMount(names.workspace, workspaceFolder)]
  return createHelper(engine, { name: names.helper, labels: labelsOf(owner, record, 'helper'), mounts })
}

/** Once the container is made: what the image has in its workspace is copied with that, and takes the folder's owner along. */
async function fillVolumes(
  { engine, owner, network }: DockerHost,
  { token }: DockerTaskContext,
  { assignment, parts, containerId, helper }: ContainerInput & { containerId: string; helper: string },
): Promise<void> {
  const user = await userOf(engine, containerId, parts.image.config.User)
  const entries = controlEntries(assignment, { user, network, isForeignAgent: parts.isForeignAgent })
  // A worker that is a container may lose its state folder with that.
  if (owner.ownContainer !== undefined) entries.push(...adoptionEntries({ token }))
  await putArchive(engine, helper, { path: '/', archive: await tarOf(entries) })
}

function describeContainer(
  { engine: { address }, options, relay }: DockerHost,
  { names }: DockerTaskContext,
  limits: ContainerLimits | undefined,
): string {
  const socket = mountsEngineSocket(options, 'socketPath' in address ? address.socketPath : undefined)
  return [
    `${names.container}, network: ${options.network}`,
    relay ? ', control plane through a socket of the worker' : '',
    limits ? `, ${limits.nanoCpus / 1e9} CPUs and ${Math.round(limits.memoryBytes / 1024 ** 2)} MiB` : '',
    '.',
    socket ? ` The worker’s volumes give it the socket of an engine (${socket.source}): it can do anything there.` : '',
  ].join('')
}
