import { z } from 'zod'
import { type AmbientAgentConfig, instanceShape, taskSidecar } from './agent-config.ts'

/**
 * The worker socket `/api/v1/selfhosted/worker/ws?worker_id=…`: JSON text frames `{type, data}`.
 *
 * The reference messages come first and mean what they mean there, so that the reference worker can serve our queue. Ours are additions: a
 * worker that sends the header `x-oz-worker-protocol: 1` begins with `worker_hello`, and both sides then use the fields marked "ours".
 * From a worker without that header nothing beyond the reference messages is expected, and nothing is sent to it.
 */
export const workerSocketPath = '/api/v1/selfhosted/worker/ws'
export const workerProtocolHeader = 'x-oz-worker-protocol'
export const workerProtocolVersion = 1

/** Close codes of ours, so that a worker can tell what to do: 4400–4409 do not reconnect, everything else does. */
export const workerCloseCodes = {
  protocolViolation: 4400,
  keyRefused: 4401,
  draining: 4503,
} as const

const envelope = <T extends string, D extends z.ZodType>(type: T, data: D) => z.object({ type: z.literal(type), data })

const executionRef = z.object({ task_id: z.uuid(), execution_id: z.uuid() })
export type ExecutionRef = z.infer<typeof executionRef>

/** How far a step is; `unit` is `bytes` so far. `total` is absent while nobody knows it. */
const stepProgress = z.object({ current: z.number(), total: z.number().optional(), unit: z.string().max(32) })

const taskRef = { task_id: z.uuid(), execution_id: z.uuid().optional() }

/** worker → server. Additional fields are left out, not refused: servers of a version before go on with a newer worker. */
export const workerMessage = z.discriminatedUnion('type', [
  envelope(
    'worker_hello',
    z.object({
      protocol: z.int(),
      version: z.string().max(64),
      backend: z.string().max(64),
      /** Of the machine that tasks run on. */
      platform: z.string().max(64),
      /** What runs its containers, in words: `docker 20.10.24 linux/amd64`. Absent: nothing does. */
      engine: z.string().max(128).optional(),
      host: z.string().max(255),
      /** 0: no limit. */
      max_concurrent_tasks: z.int().min(0),
      /** Executions that this worker still runs, from before this connection. */
      running: z.array(executionRef),
      /** Executions whose process has ended, and whose end this worker still saves, delivers, and will report. */
      finishing: z.array(executionRef).optional(),
      /**
       * This process (first), and the processes before it on the same machine that are gone and whose tasks it took over. What one of these held and
       * neither `running` nor `finishing` names was lost with it (`worker_died`).
       */
      instances: z.array(z.uuid()).max(1_000).optional(),
    }),
  ),
  envelope('task_claimed', z.object({ ...taskRef, worker_id: z.string().optional() })),
  envelope('task_rejected', z.object({ ...taskRef, reason: z.string().max(4096) })),
  envelope(
    'task_completed',
    z.object({ ...taskRef, message: z.string().default(''), task_state: z.string().optional() }),
  ),
  envelope(
    'task_failed',
    z.object({
      ...taskRef,
      message: z.string().default(''),
      task_state: z.string().optional(),
      failure_reason: z.string().optional(),
      exit_code: z.int().optional(),
    }),
  ),
  /** Ours: a fact about a task that is neither its claim nor its end. */
  envelope(
    'task_step',
    z.object({
      task_id: z.uuid(),
      execution_id: z.uuid(),
      /** One of `setupSteps`, or of a newer worker's: refused, it would cost that one its connection. */
      step: z.string().min(1).max(64),
      status: z.enum(['started', 'progress', 'completed', 'failed']),
      duration_ms: z.number().optional(),
      detail: z.string().max(65_536).optional(),
      /** With the status `progress`. */
      progress: stepProgress.optional(),
    }),
  ),
  /** Ours: slots changed. */
  envelope('worker_status', z.object({ active: z.int().min(0), draining: z.boolean() })),
  /** Ours: the agent's process has ended. Until the end itself is reported the worker saves and delivers what it left, and renews the lease again. */
  envelope('task_finishing', executionRef),
  /** Ours: no process of this execution is left. Answers `task_superseded`; a lost run waits for it before it is tried again. */
  envelope('task_gone', executionRef),
  envelope('heartbeat', z.unknown()),
])
export type WorkerMessage = z.infer<typeof workerMessage>

/** What the worker starts. `task` has the reference's shape, capitals included. */
export const taskAssignment = z.object({
  task_id: z.uuid(),
  execution_id: z.uuid(),
  task: z.object({
    id: z.uuid(),
    title: z.string(),
    task_definition: z.object({ prompt: z.string() }),
    created_at: z.string(),
    updated_at: z.string(),
    owner: z.object({ Type: z.enum(['USER', 'TEAM']), Id: z.int() }),
    agent_config_snapshot: z.custom<AmbientAgentConfig>().optional(),
    agent_conversation_id: z.string().optional(),
  }),
  docker_image: z.string().optional(),
  /** The reference's agent in an image, instead of the one that the worker brings. */
  sidecar_image: z.string().optional(),
  additional_sidecars: z.array(z.object(taskSidecar.shape)).optional(),
  instance_shape: z.object(instanceShape.shape).optional(),
  env_vars: z.record(z.string(), z.string()).optional(),
  additional_oz_args: z.array(z.string()).optional(),
  /** Ours: the execution's token, to be handed over in a 0600 file. Absent for reference workers, which find it in `env_vars`. */
  execution_token: z.string().optional(),
})
export type TaskAssignment = z.infer<typeof taskAssignment>

/** server → worker */
export const serverMessage = z.discriminatedUnion('type', [
  envelope('task_assignment', taskAssignment),
  /** To ours it comes when the agent had its time to end politely, or never began: its processes are ended at once. */
  envelope('task_cancellation', z.object({ task_id: z.uuid(), execution_id: z.uuid().optional() })),
  /** Ours: this execution is over in the database. End its processes at once, and answer `task_gone` instead of its end. */
  envelope('task_superseded', executionRef),
  /** Ours: an operator drains this worker id. It takes nothing new; what runs goes on. `false`: the drain is over. */
  envelope('worker_drain', z.object({ draining: z.boolean() })),
])
export type ServerMessage = z.infer<typeof serverMessage>

/**
 * The plain HTTP channel, for networks that end WebSockets; ours alone. `GET …?worker_id=…` answers server-sent events: `open` {channel_id}, then
 * `message` (a server message), `handled` {through}, `ping` (every 5 s), and, as the last one, `close` {code, reason} with the codes above. What the worker says goes by
 * `POST …/{channel_id}` to whichever server of the control plane answers; it is numbered from 1, so that the same request may be sent again.
 *
 * `received` of the answer: stored up to this number, send no more of it. `handled`: done with, as a pong says it on the WebSocket.
 */
export const workerChannelPath = '/api/v1/selfhosted/worker/channel'

/** Of one POST. */
export const maxWorkerFrames = 256

export const openWorkerChannelQuery = z.object({ worker_id: z.string() })

export const workerFramesRequest = z
  .object({
    /** Number of the first frame; the others follow without a gap. */
    first: z.int().min(1),
    frames: z.array(workerMessage).min(1).max(maxWorkerFrames),
  })
  .meta({ id: 'WorkerFramesRequest' })
export type WorkerFramesRequest = z.infer<typeof workerFramesRequest>

export const workerFramesResponse = z.object({ received: z.int() }).meta({ id: 'WorkerFramesResponse' })
export type WorkerFramesResponse = z.infer<typeof workerFramesResponse>
