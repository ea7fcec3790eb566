import { writeFile } from 'node:fs/promises'
import { identifyProcess } from '@openoz/machine'
import type { TaskAssignment } from '@openoz/protocol'
import { aborted } from '../aborted.ts'
import { withPreloadAside } from '../bundle/image-preload.ts'
import { createContainer, inspectContainer, putArchive, startContainer } from '../engine/containers.ts'
import { EngineFailure } from '../engine/engine-failure.ts'
import { createHelper, volumeMount } from '../engine/helper-container.ts'
import { tarOf } from '../engine/tar-text.ts'
import { createVolume } from '../engine/volumes.ts'
import { launchArguments } from '../launch-command.ts'
import { keepRoomForEnd } from '../task-end.ts'
import { makeTaskFolder, removeTaskFolder, type TaskRecord, taskFolder, writeRecord } from '../task-folder.ts'
import { secretsOf } from '../task-secrets.ts'
import { type StartOptions, type StepReporter, TaskFailure } from './backend.ts'
import { containerEnvironment, controlEntries, controlPaths, tokenOf } from './docker-environment.ts'
import { createFailure, startFailure } from './docker-exit.ts'
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
import { DockerTask } from './docker-task.ts'
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
  const { worker, facts, engine } = host
  const { reporter, record } = context
  const limits = limitsOf(assignment.instance_shape, { facts, workerId: worker.workerId })
  const parts = await gatherParts(host, context, { assignment, signal })
  signal.throwIfAborted()
  reporter.started('container')
  const making = makeContainer(host, context, { assignment, parts, limits })
  const containerId = await making.catch((error: unknown) => {
    reporter.failed('container', error instanceof Error ? error.message : 'unknown error')
    throw error
  })
  reporter.completed('container', describeContainer(host, context, limits))
  // An offer that was withdrawn meanwhile, perhaps because we hung, is somebody else's work by now.
  await Promise.race([claimed, aborted(signal)])
  signal.throwIfAborted()
  await host.alone(() => fenceFormerExecutions(host, record))
  signal.throwIfAborted()
  reporter.started('start')
  try {
    await startContainer(engine, containerId)
  } catch (error) {
    if (!(error instanceof EngineFailure) || error.status === undefined) {
      // Nobody knows whether it runs.
      if ((await inspectContainer(engine, containerId))?.State.Running)
        return new DockerTask(host, context, { containerId })
      throw error
    }
    const failure = startFailure(error.engineSays, host.options)
    reporter.failed('start', failure.message)
    throw failure
  }
  reporter.completed('start')
  return new DockerTask(host, context, { containerId })
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
    const containerId = await createTaskContainer(host, context, { ...input, volumes, relay: relayed })
    if (!input.parts.isForeignAgent && !(await host.shared.isSame(volumes.agent)))
      throw new TaskFailure('container_create', 'The agent’s volume was removed from the engine just now.')
    await fillVolumes(host, context, { ...input, containerId })
    return containerId
  })()
  const [made, container] = await Promise.allSettled([network, filled])
  if (made.status === 'rejected') throw asFailure(made.reason)
  if (container.status === 'rejected') throw asFailure(container.reason)
  return container.value
}

function asFailure(error: unknown): unknown {
  if (!(error instanceof EngineFailure)) return error
  return new TaskFailure('container_create', `The container could not be prepared: ${error.engineSays}`, {
    cause: error,
  })
}

/** With labels: one that the engine makes by itself has none, and outlives whoever knew of it. */
async function makeVolumes(
  { engine, owner, options }: DockerHost,
  { record, names }: DockerTaskContext,
  { image, agent, sidecars }: TaskParts,
): Promise<TaskVolumes> {
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
  return { agent, control: names.control, workspace: names.workspace, sidecars, ofImage }
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
  const spec = containerSpec({
    image,
    command: [...command, ...launchArguments(assignment, { ...worker, serverRootUrl, mcpFile })],
    environment: isForeignAgent ? environment : withPreloadAside(environment, image.config.Env),
    labels: labelsOf(owner, record, 'task'),
    options,
    network: options.network === 'isolated' ? names.network : options.network,
    volumes,
    relay,
    limits,
  })
  try {
    return (await createContainer(engine, spec, { name: names.container, platform: facts.platform })).Id
  } catch (error) {
    // Never the request: it holds the task's variables.
    if (error instanceof EngineFailure && error.status !== undefined) throw createFailure(error.engineSays)
    throw error
  }
}

/** Through a container of its own: into one with a read-only root the engine puts nothing, and mount points get an owner only from above them. */
async function fillVolumes(
  { engine, owner, network }: DockerHost,
  { record, names, token }: DockerTaskContext,
  { assignment, parts, containerId }: ContainerInput & { containerId: string },
): Promise<void> {
  const mounts = [volumeMount(names.control, controlFolder), volumeMount(names.workspace, workspaceFolder)]
  const labels = labelsOf(owner, record, 'helper')
  const [user, helper] = await Promise.all([
    userOf(engine, containerId, parts.image.config.User),
    createHelper(engine, { name: names.helper, labels, mounts }),
  ])
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
