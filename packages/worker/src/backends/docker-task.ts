import { sleep } from '@openoz/machine'
import { hasGuard } from '../bundle/bundle-command.ts'
import { type ContainerDetails, inspectContainer, killContainer } from '../engine/containers.ts'
import type { TaskEndRecord } from '../task-end.ts'
import type { StopCause, Task, TaskExit, TaskRemains } from './backend.ts'
import { exitOf } from './docker-exit.ts'
import type { DockerHost, DockerTaskContext } from './docker-host.ts'
import { fetchLeft } from './docker-left.ts'
import type { SeenEnd } from './docker-observe.ts'
import { saveLeftWork } from './docker-save.ts'
import { workspaceFolder } from './docker-spec.ts'
import { type AgentEnd, EndedTask } from './ended-task.ts'

/** What is known of a task's container when a DockerTask is made. */
export interface DockerTaskState {
  /** Of its container; undefined: there is none any more. */
  containerId: string | undefined
  /** It had ended when it was found, and no worker was there: perhaps with its engine, or the machine. */
  isFoundDead?: boolean
  /** Of a task that had ended already. */
  end?: TaskEndRecord
}

const firstPauseMs = 200
const longestPauseMs = 5_000

/**
 * A started agent of the docker backend: a container, whose end is the end of everything in it. The lease is kept by the guard in the container, which is
 * on the engine's machine. See `Task` for what may be called when.
 */
export class DockerTask implements Task {
  readonly pid = undefined
  readonly place: string
  readonly workspace = workspaceFolder
  readonly exited: Promise<TaskExit>
  /** It has ended when the engine says so: there is nothing that goes on. */
  readonly mayRun = false
  readonly #host: DockerHost
  readonly #context: DockerTaskContext
  readonly #ended: EndedTask
  readonly #containerId: string | undefined
  readonly #isFoundDead: boolean
  #isStopped = false
  #seen: AgentEnd | undefined

  constructor(
    host: DockerHost,
    context: DockerTaskContext,
    { containerId, isFoundDead = false, end }: DockerTaskState,
  ) {
    this.#host = host
    this.#context = context
    this.#containerId = containerId
    this.#isFoundDead = isFoundDead
    this.place = `container ${context.names.container}`
    this.#ended = new EndedTask(
      {
        ...context,
        save: (stop) => saveLeftWork(host, context, stop),
        ownsWorkspace: async () => true,
        tearDown: async () => {},
      },
      end,
    )
    this.exited = end?.exit ? Promise.resolve(end.exit) : this.#follow()
  }

  get isSpoolKept(): boolean {
    return this.#ended.isSpoolKept
  }

  async #follow(): Promise<TaskExit> {
    const gone: SeenEnd = { state: undefined, wasEngineAway: false, wasKilled: false }
    const { observer, leaving } = this.#host
    const isAsked = () => this.#isStopped || this.#isFoundDead
    const { state, wasEngineAway, wasKilled } =
      this.#containerId === undefined ? gone : await observer.watch(this.#containerId, { isAsked, signal: leaving })
    // Of foreign agents, and of containers that are gone, less is known.
    const details = state?.OOMKilled ? await this.#details() : undefined
    const seen = exitOf(state, {
      isStopped: this.#isStopped,
      wasEngineAway: wasEngineAway || this.#isFoundDead,
      wasKilled,
      isGuarded: details !== undefined && hasGuard([details.Path, ...details.Args]),
    })
    // 0: it had no limit of its own.
    const limit = details?.HostConfig.Memory
    this.#seen = seen.outOfMemory === 'task' && limit ? { ...seen, memoryLimitBytes: limit } : seen
    return seen.exit
  }

  /** undefined: it is gone, or the engine does not say. */
  async #details(): Promise<ContainerDetails | undefined> {
    const { engine, names } = this.#context
    return inspectContainer(engine, names.container).catch(() => undefined)
  }

  async stop(graceMs: number): Promise<void> {
    const { engine, log } = this.#context
    const { leaving } = this.#host
    const id = this.#containerId
    if (id === undefined) return
    this.#isStopped = true
    const hasEnded = this.exited.then(() => true)
    const endsWithin = (ms: number) => Promise.race([hasEnded, sleep(ms, leaving).then(() => false)])
    const deadline = performance.now() + graceMs
    if (graceMs > 0) {
      await killContainer(engine, id, { kill: 'SIGTERM' }).catch((error: unknown) =>
        log.warn({ error }, 'The engine could not be told to end a task'),
      )
      if (await endsWithin(Math.max(0, deadline - performance.now()))) return
    }
    // An engine that is away is asked until it is back: nobody else can end it.
    for (let pauseMs = firstPauseMs; !leaving.aborted; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
      await killContainer(engine, id).catch((error: unknown) =>
        log.warn({ error }, 'A task could not be ended; tried again'),
      )
      if (await endsWithin(pauseMs)) return
    }
  }

  async close(cause: StopCause | undefined): Promise<StopCause | undefined> {
    const exit = await this.exited
    this.#ended.lookAtDisk()
    try {
      await fetchLeft(this.#host, this.#context, this.#host.leaving)
    } catch {
      // Left to the next process.
      await new Promise<never>(() => {})
    }
    return this.#ended.close(cause, this.#seen ?? { exit })
  }

  finish({ abandoned, signal }: { abandoned: AbortSignal; signal: AbortSignal }): Promise<TaskRemains> {
    return this.#ended.finish({ abandoned, signal, mayRun: this.mayRun })
  }
}
