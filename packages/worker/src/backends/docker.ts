import { join } from 'node:path'
import { createDialer, type Dialer, isDiskFull, userFolders } from '@openoz/machine'
import { AppError, describeError, messageOf, type TaskAssignment } from '@openoz/protocol'
import type { Logger } from 'pino'
import manifest from '../../package.json' with { type: 'json' }
import { findBundle } from '../bundle/find-bundle.ts'
import { createSharedVolumes } from '../bundle/shared-volume.ts'
import { lackOfRoom, noRoom } from '../disk-room.ts'
import { readDockerOptions } from '../docker-options.ts'
import { inspectContainer } from '../engine/containers.ts'
import { type Engine, openEngine } from '../engine/engine.ts'
import { findEngine } from '../engine/engine-address.ts'
import { checkEngine, type EngineFacts } from '../engine/engine-check.ts'
import { EngineFailure } from '../engine/engine-failure.ts'
import { createImagePuller } from '../engine/image-pull.ts'
import { readInstallationId } from '../installation.ts'
import { openInstances } from '../instances.ts'
import type { Link } from '../link.ts'
import { tasksFolder } from '../task-folder.ts'
import { readTaskNetwork } from '../task-network.ts'
import type { WorkerOptions } from '../worker-options.ts'
import { makeWritable } from '../writable-folder.ts'
import {
  type AdoptedTask,
  type Backend,
  type BackendLimits,
  type StartOptions,
  type StepReporter,
  type Task,
  TaskFailure,
  type TaskRefs,
} from './backend.ts'
import { dockerFormer } from './docker-adopt.ts'
import { checkOptions, probeRelayFolder } from './docker-check.ts'
import { engineTaskFailure } from './docker-exit.ts'
import { claimHomeless } from './docker-homeless.ts'
import type { DockerHost, DockerTaskContext, TaskRelay } from './docker-host.ts'
import { isAlive, type LabelOwner, namesOf, serverLabel, serverMark, taskLabels, whoseIs } from './docker-labels.ts'
import { type Observer, startObserver } from './docker-observe.ts'
import { findOwnContainer } from './docker-own-container.ts'
import { type ContainerProxies, containerProxies } from './docker-proxies.ts'
import { createRelay, isOnlyHere } from './docker-relay.ts'
import { endContainers, removeFromEngine } from './docker-removal.ts'
import { launchTask, prepareTask } from './docker-start.ts'
import { sweepEngine } from './docker-sweep.ts'
import { endStrayTask } from './end-stray.ts'
import { noteFailure } from './ended-task.ts'
import { HeldTasks } from './held-tasks.ts'
import { adoptTasks } from './take-over.ts'
import { WorkQueue } from './work-queue.ts'

/**
 * Tasks as containers of an engine, one each, with a network and volumes of its own. Everything goes through the engine's API: what the engine is, and
 * on which machine, makes no difference, but for `docker-relay.ts`. On this machine lies what `task-folder.ts` says, without a workspace.
 */
interface DockerBackendOptions extends BackendLimits {
  worker: WorkerOptions
  dialer: Dialer
  link: Link
  log: Logger
}

/** For a volume that is being filled when we leave: some times what that takes. */
const settleMs = 15_000

export function createDockerBackend({
  deliveryTimeoutMs = 10 * 60_000,
  savingTimeoutMs = 120_000,
  unsteadyTimeoutMs = 30 * 60_000,
  ...options
}: DockerBackendOptions): Backend {
  return new DockerBackend({ ...options, deliveryTimeoutMs, savingTimeoutMs, unsteadyTimeoutMs })
}

class DockerBackend implements Backend {
  readonly name = 'docker'
  readonly #options: Required<DockerBackendOptions>
  readonly #leaving = new AbortController()
  readonly #held: HeldTasks<DockerTaskContext>
  readonly #queue = new WorkQueue()
  #engine: Engine | undefined
  #observer: Observer | undefined
  /** To the control plane as agents know it, where that is not ours. */
  #agentsDialer: Dialer | undefined
  #checked: DockerHost | undefined

  constructor(options: Required<DockerBackendOptions>) {
    this.#options = options
    const { log, deliveryTimeoutMs } = options
    this.#held = new HeldTasks<DockerTaskContext>({
      log,
      deliveryTimeoutMs,
      endAgain: endContainers,
      release: (context) => removeFromEngine(this.#host, context),
    })
  }

  get platform(): string {
    return nodePlatforms[this.#host.facts.platform]
  }

  get engine(): string {
    const { version, platform } = this.#host.facts
    return `docker ${version} ${platform}`
  }

  get instances(): readonly string[] {
    return [...this.#host.instances.all, ...this.#host.claimed.keys()]
  }

  async check(signal: AbortSignal): Promise<void> {
    const { worker, log } = this.#options
    const options = worker.docker ?? readDockerOptions({}, {})
    const stateDir = options.stateDir ?? (process.getuid?.() === 0 ? '/var/lib/oz' : userFolders(worker.env).state)
    await makeWritable(tasksFolder(stateDir))
    const { env } = worker
    this.#engine ??= openEngine(findEngine(env), { env, log })
    const engine = this.#engine
    const found = await checkEngine(engine, signal)
    const own = await findOwnContainer(engine, signal)
    // From within a container of it paths of its machine cannot be seen, whatever kind of socket leads there.
    const facts = { ...found, isLocal: found.isLocal && own === undefined }
    await checkOptions(engine, { options, facts, signal })
    const { platform } = facts
    const bundle = options.sidecarImage ? undefined : await findBundle({ platform, configured: options.bundle, env })
    const installationId = await readInstallationId(stateDir)
    const whose = { worker_id: worker.workerId, server_url: worker.serverUrl, backend: this.name }
    const instances = this.#checked?.instances ?? openInstances(stateDir, whose)
    const owner: LabelOwner = {
      workerId: worker.workerId,
      serverUrl: worker.serverUrl,
      installationId,
      instance: instances.own,
      version: manifest.version,
      keeps: !worker.cleanup,
      ...(own ? { ownContainer: own.Id } : {}),
    }
    const proxies = containerProxies(readTaskNetwork(env), { worker, options, facts })
    const { hidesServer } = proxies
    const wish = { stateDir, engine, own, owner, options, hidesServer }
    const relay = this.#checked?.relay ?? (await this.#openRelay(wish))
    // Not by the state folder: what is taken over from one that is gone has the label of that.
    const labels = [`${taskLabels.worker}=${worker.workerId}`, `${serverLabel}=${serverMark(worker.serverUrl)}`]
    this.#observer ??= startObserver({ engine, labels, log, signal: this.#leaving.signal })
    this.#checked = {
      ...this.#options,
      backend: this.name,
      ...{ options, stateDir, engine, facts, bundle, installationId, instances, owner, relay },
      network: proxies.network,
      observer: this.#observer,
      puller: this.#checked?.puller ?? createImagePuller(engine, { env, log }),
      shared:
        this.#checked?.shared ??
        createSharedVolumes({
          ...{ engine, installationId, log },
          instance: instances.own,
          isAlive: (instance) => isAlive(instances, instance),
        }),
      claimed: this.#checked?.claimed ?? new Map(),
      held: this.#held,
      toldElsewhere: this.#checked?.toldElsewhere ?? new Set(),
      leaving: this.#leaving.signal,
      alone: (work) => this.#queue.run(work),
    }
    this.#describe(this.#checked, proxies)
  }

  /** Where containers would not get there by themselves; then it has to work. */
  async #openRelay({
    stateDir,
    engine,
    own,
    owner,
    options,
    hidesServer,
  }: Pick<DockerHost, 'stateDir' | 'engine' | 'owner' | 'options'> & {
    own: Awaited<ReturnType<typeof findOwnContainer>>
    hidesServer: boolean
  }): Promise<TaskRelay | undefined> {
    const { worker, dialer, log } = this.#options
    const { serverRootUrl: url } = worker
    if (options.network !== 'none' && !isOnlyHere(url) && !hidesServer) return undefined
    const folder = join(stateDir, 'relay')
    const onEngine = await probeRelayFolder(engine, { folder, own, owner, url })
    if (url !== worker.serverUrl) this.#agentsDialer ??= createDialer({ serverUrl: url, env: worker.env })
    return { relay: createRelay({ folder, dialer: this.#agentsDialer ?? dialer, serverUrl: url, log }), onEngine }
  }

  #describe({ engine, facts, options, relay, bundle }: DockerHost, { left }: ContainerProxies): void {
    const { display, source } = engine.address
    const { version, platform } = facts
    const about = { engine: display, source, version, platform, network: options.network, security: options.security }
    const hash = bundle?.manifest.hash.slice(0, 12)
    this.#options.log.info({ ...about, relay: relay !== undefined, bundle: hash }, 'Tasks run as containers')
    if (left.length > 0)
      this.#options.log.warn(
        { variables: left },
        'A proxy on this machine’s loopback is none for containers: tasks are not given it. -e HTTPS_PROXY=… names one that they reach',
      )
  }

  lackOfRoom(): string | undefined {
    const { stateDir, observer, engine } = this.#host
    const { display: address, source } = engine.address
    // A run that waits is none that has failed: engines come back.
    if (observer.isEngineAway)
      return describeError('engine_unreachable', { address, source, problem: 'it has stopped answering' })
    return lackOfRoom(stateDir)
  }

  async start(assignment: TaskAssignment, reporter: StepReporter, options: StartOptions): Promise<Task> {
    const host = this.#host
    let context: DockerTaskContext | undefined
    try {
      context = await prepareTask(host, assignment, reporter)
      const task = await launchTask(host, context, { assignment, ...options })
      const held = host.held.get(assignment.execution_id)
      if (held) held.task = task
      return task
    } catch (error) {
      const isStopped = options.signal.aborted && !(error instanceof TaskFailure)
      const failure = isStopped ? options.signal.reason : asTaskFailure(error, host)
      if (context) await noteFailure(context, failure)
      throw failure
    }
  }

  async adopt(reporterOf: (task: TaskRefs) => StepReporter): Promise<AdoptedTask[]> {
    await claimHomeless(this.#host)
    return await adoptTasks(this.#host, dockerFormer(this.#host), reporterOf)
  }

  forgetInstances(named: readonly string[]): void {
    const { instances, claimed } = this.#host
    instances.forget(named)
    for (const instance of named) if (claimed.has(instance)) claimed.set(instance, { isNamed: true })
  }

  async sweep(): Promise<void> {
    await sweepEngine(this.#host)
  }

  async deliver(signal: AbortSignal): Promise<void> {
    await this.#held.deliverKept(AbortSignal.any([signal, this.#leaving.signal]))
  }

  async endStray(refs: TaskRefs): Promise<boolean> {
    const { engine, owner } = this.#host
    return await endStrayTask(this.#host, refs.execution_id, async () => {
      const names = namesOf(refs)
      const found = await inspectContainer(engine, names.container)
      if (!found) return true
      // Another worker's on the same engine, with a state folder of its own.
      if (whoseIs(owner, found.Config.Labels ?? undefined) !== 'ours') return false
      return await endContainers({ engine, names })
    })
  }

  remove(executionId: string): Promise<void> {
    return this.#held.remove(executionId)
  }

  stopSweeping(): void {
    this.#leaving.abort(new Error('this worker process leaves its tasks to the next one'))
  }

  async leave({ isAllTold }: { isAllTold: boolean }): Promise<void> {
    this.stopSweeping()
    const host = this.#checked
    if (host) {
      const { isAllOver } = await this.#held.leave()
      await host.relay?.relay.leave()
      await host.shared.settle(settleMs)
      // What only waits for its spool was told. A claim may have been all that was told of what has no folder.
      host.instances.close({ isDone: isAllTold && isAllOver })
    }
    await this.#agentsDialer?.close()
    await this.#engine?.[Symbol.asyncDispose]()
  }

  get #host(): DockerHost {
    if (!this.#checked) throw new Error('check() comes first')
    return this.#checked
  }
}

/** As Node names them. */
const nodePlatforms: Record<EngineFacts['platform'], string> = {
  'linux/amd64': 'linux/x64',
  'linux/arm64': 'linux/arm64',
}

function asTaskFailure(error: unknown, { stateDir, engine }: Pick<DockerHost, 'stateDir' | 'engine'>): TaskFailure {
  if (error instanceof TaskFailure) return error
  if (error instanceof EngineFailure) return engineTaskFailure(error, engine.address)
  if (isDiskFull(error)) return new TaskFailure('disk_full', noRoom(stateDir), { cause: error })
  const code = error instanceof AppError ? error.code : undefined
  return new TaskFailure('container_create', `The container could not be made: ${messageOf(error)}`, {
    cause: error,
    code,
  })
}
