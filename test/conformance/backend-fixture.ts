import type { TaskAssignment } from '@openoz/protocol'
import type { WorkerEvent } from '@openoz/worker'
import type {
  Backend,
  BackendName,
  StepReporter,
  Task,
  TaskExit,
  TaskRefs,
} from '../../packages/worker/src/backends/backend.ts'
import type { ControlPlane } from '../support/control-plane.ts'
import { until } from '../support/poll.ts'

/** What the cases need to know of a backend; one implementation per backend. */
export interface BackendFixture {
  readonly name: BackendName
  /** Once before the first case. */
  prepare(): Promise<void>
  /** The backend alone, without a control plane. */
  openScene(options?: { folder?: string }): Promise<Scene>
  /** A worker in this process, with one slot or more, whose id is `w1`. Resolves once it listens. */
  startWorker(cp: ControlPlane, options?: ConformanceWorkerOptions): Promise<ConformanceWorker>
  /** What a run needs in its config to run here. */
  readonly runConfig: { environment?: { docker_image: string } }
  /** Everything that there is of a task, processes and files of its worker included, in words. */
  leftOf(task: TaskRefs, folder: string): Promise<string[]>
  /** How many processes of it run. */
  countProcesses(task: TaskRefs): Promise<number>
  /** What its agent has written to stdout and stderr so far. */
  outputOf(task: TaskRefs, folder: string): Promise<string>
  /** Ends the agent of a task that runs with SIGKILL. */
  killAgent(task: TaskRefs): Promise<void>
  /** An agent that takes memory until the kernel ends it, and how that is told. */
  starve(): Disposable & { script: string; more: Partial<TaskAssignment>; outOfMemory: 'task' | 'machine' }
}

/** A backend whose agents are shell scripts, as their variable SCENE says. */
export interface Scene extends AsyncDisposable {
  readonly backend: Backend
  readonly folder: string
  readonly stateDir: string
  readonly reporter: StepReporter
  start(assignment: TaskAssignment): Promise<Task>
  /** As when its worker ends: what runs goes on. */
  leave(): Promise<void>
}

export interface ConformanceWorkerOptions {
  /** Of a worker before, whose successor this is. */
  folder?: string
  /** Of the worker itself. */
  env?: NodeJS.ProcessEnv
  taskEnvironment?: Record<string, string>
  /** A shell script instead of our agent. */
  scene?: string
}

export interface ConformanceWorker extends AsyncDisposable {
  readonly events: WorkerEvent[]
  readonly folder: string
  /** Ends it; with `leave` its tasks go on. */
  stop(how?: 'stop' | 'leave'): Promise<void>
}

/** Shows one sentence of the list of one backend; throws when that does otherwise. */
export type CaseBody = (fixture: BackendFixture) => Promise<void>

export const never = new AbortController().signal

/** As shells tell it. */
export function codeOf(exit: TaskExit): number | undefined {
  if (exit.type === 'vanished') return undefined
  return exit.type === 'exited' ? exit.code : 128 + exit.signal
}

/** Waits for the end of a task, does what comes after it, and removes it. */
export async function endOf(scene: Scene, task: Task, { execution_id: executionId }: TaskRefs) {
  const exit = await task.exited
  await task.close(undefined)
  const remains = await task.finish({ abandoned: never, signal: never })
  await scene.backend.remove(executionId)
  return { code: codeOf(exit), ...remains }
}

export async function untilSaid(
  fixture: BackendFixture,
  { folder }: Pick<Scene, 'folder'>,
  { assignment, text = 'ready' }: { assignment: TaskRefs; text?: string },
): Promise<void> {
  const options = { timeoutMs: 20_000, everyMs: 50 }
  await until(
    () => fixture.outputOf(assignment, folder),
    (said) => said.includes(text),
    options,
  )
}

/** Once nothing is left of a task. */
export async function untilNothingLeft(fixture: BackendFixture, task: TaskRefs, folder: string): Promise<void> {
  await until(
    () => fixture.leftOf(task, folder),
    (left) => left.length === 0,
    { timeoutMs: 20_000, everyMs: 50 },
  )
}
