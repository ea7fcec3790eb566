import { stat } from 'node:fs/promises'
import type { Dialer, Masker } from '@openoz/machine'
import { ApiError, AppError, type HelloResponse, type ModelAccess, repositoriesOf } from '@openoz/protocol'
import type { RunAgentOptions } from './agent-options.ts'
import { type AgentChannel, isRefusal } from './channel.ts'
import type { EventLog } from './event-log.ts'
import { notice } from './event-sink.ts'
import type { Harness, HarnessCheckpoint, HarnessSession, ModelGateway, TurnResult } from './harnesses/harness.ts'
import { selectHarness } from './harnesses/select.ts'
import { setupStep } from './setup-step.ts'
import type { StopSwitch } from './stop-switch.ts'
import { markerName } from './task-environment.ts'
import { prepareRepositories, type Workspace } from './workspace/prepare.ts'
import { restoreWorkspace } from './workspace/restore.ts'
import { runSetupCommands } from './workspace/setup-commands.ts'

/** After that the workspace is waiting to be saved. */
const stoppedStepMs = 2_000

/** What an execution is given. */
export interface Execution extends RunAgentOptions {
  hello: HelloResponse
  channel: AgentChannel
  dialer: Dialer
  /** When the agent began; its hello was the first step. */
  startedAt: Date
}

/** The one turn of an execution, with everything that it needs. */
export interface Turn extends Execution {
  events: EventLog
  masker: Masker
  stop: StopSwitch
  /** What git, setup commands and tools inherit. */
  taskEnv: NodeJS.ProcessEnv
  /** Set once there is something to save. */
  workspace: Workspace | undefined
}

/**
 * Prepares the environment, opens the harness and lets it answer. Rejects with the AppError that stopped the preparation, or with the stop
 * switch's reason. The harness loads while repositories are cloned and set up.
 */
export async function performTurn(turn: Turn): Promise<TurnResult> {
  const { hello, events, stop } = turn
  const load = selectHarness(hello.config.harness?.type)
  const model = requireModel(hello)
  const loading = load()
  // It is awaited further down; until then a failure must not count as unhandled.
  loading.catch(() => {})

  const notes = await prepareWorkspace(turn)
  const { folder } = turn.workspace ?? { folder: turn.workingDirectory }
  const env = await runSetupCommands({
    commands: hello.config.environment?.setup_commands ?? [],
    folder,
    env: turn.taskEnv,
    timeoutMs: hello.limits.setup_command_timeout_ms,
    signal: stop.working,
    sink: events,
  })
  const harness = await setupStep(events, { step: 'harness' }, () => loading)
  // Whatever the setup did to the environment: the end of the run finds its processes by the marker.
  const taskEnv = { ...env, [markerName]: turn.taskEnv[markerName] }
  const session = await openSession({ ...turn, taskEnv }, { harness, model, notes })
  try {
    return await session.prompt(session.isMidTurn ? undefined : hello.turn.message, stop.working)
  } finally {
    await session.close()
    if (stop.working.aborted) await saveStoppedStep(turn, { harness: harness.name, session })
  }
}

function requireModel({ model, model_problem, config }: HelloResponse): ModelAccess {
  if (model) return model
  const error = new AppError('model_provider_missing', { forModel: config.model_id ? ` for ${config.model_id}` : '' })
  // The control plane knows better what is missing there.
  if (model_problem) error.message = model_problem
  throw error
}

/** Fills the workspace. Returns what the model must be told about it. */
async function prepareWorkspace(turn: Turn): Promise<string[]> {
  const { hello, events, stop, taskEnv, masker, workingDirectory } = turn
  await setupStep(events, { step: 'workspace' }, () => requireFolder(workingDirectory))
  for (const text of whatDoesNotApply(turn)) notice(events, 'info', text)
  const workspace = await prepareRepositories({
    sources: repositoriesOf(hello.config.environment),
    folder: workingDirectory,
    runId: hello.run_id,
    env: taskEnv,
    timeoutMs: hello.limits.setup_command_timeout_ms,
    signal: stop.working,
    sink: events,
    mask: (text) => masker.mask(text),
  })
  turn.workspace = workspace
  if (hello.attempt === 1 && !hello.workspace) return []

  const restored = await restoreWorkspace({
    saved: hello.workspace?.repositories ?? [],
    repositories: workspace.repositories,
    env: taskEnv,
    timeoutMs: hello.limits.setup_command_timeout_ms,
    signal: stop.working,
    download: (blobId, file) => turn.channel.downloadBlobTo(file, blobId, stop.working),
  })
  turn.workspace = { ...workspace, repositories: restored.repositories }
  for (const note of restored.notes) notice(events, 'info', `Workspace of attempt ${hello.attempt}: ${note}`)
  const about = `Note from openoz: this is attempt ${hello.attempt} of this run. The process of the attempt before is gone, with every process that it had started; what it had installed on its machine, and files outside of the repositories, may be gone too. Setup commands have been run again.`
  return [[about, 'The repositories:', ...restored.notes].join('\n')]
}

async function requireFolder(folder: string): Promise<void> {
  const found = await stat(folder).catch(() => undefined)
  if (!found?.isDirectory()) throw new AppError('working_directory_invalid', { directory: folder })
}

/** Parts of the config that have no effect here: said, not silently dropped. */
function whatDoesNotApply({ hello, env }: Turn): string[] {
  const { environment, mcp_servers, skill_spec, computer_use_enabled } = hello.config
  const texts: string[] = []
  if (environment?.docker_image && env.OZ_WORKER_BACKEND === 'direct') {
    texts.push(
      `The image ${environment.docker_image} does not apply: the worker's direct backend runs on the machine itself.`,
    )
  }
  if (Object.keys(mcp_servers ?? {}).length > 0)
    texts.push('The built-in harness does not use MCP servers; they are left out.')
  if (skill_spec) texts.push(`The built-in harness does not use skills; ${skill_spec} is left out.`)
  if (computer_use_enabled) texts.push('The built-in harness cannot use a computer’s screen; the setting is left out.')
  return texts
}

async function openSession(
  turn: Turn,
  { harness, model, notes }: { harness: Harness; model: ModelAccess; notes: string[] },
): Promise<HarnessSession> {
  const { hello, events, masker, stop, channel, workspace, taskEnv, log } = turn
  const { working } = stop
  const session: HarnessSession = await harness.open({
    runId: hello.run_id,
    turnId: hello.turn.turn_id,
    config: hello.config,
    model,
    limits: hello.limits,
    workspace: workspace ?? { folder: turn.workingDirectory, toolsFolder: turn.workingDirectory, repositories: [] },
    env: taskEnv,
    sink: events,
    gateway: modelGateway(turn),
    checkpoint: await loadCheckpoint(turn, harness),
    notes,
    stepFinished: () => saveCheckpoint(turn, { harness: harness.name, session, signal: working }),
    keepOutput: async (file) => {
      try {
        return await channel.uploadBlob({ file }, { contentType: 'text/plain; charset=utf-8', signal: working })
      } catch (error) {
        working.throwIfAborted()
        log.warn({ err: error }, 'an output could not be kept whole')
        return undefined
      }
    },
    masker,
    log,
  })
  return session
}

/** The way to the model. A refusal of the execution itself is noticed here, whichever harness meets it. */
function modelGateway({ dialer, executionToken, stop }: Turn): ModelGateway {
  return {
    token: executionToken,
    async fetch(path, init) {
      const response = await dialer.fetch(path, init)
      if (response.status === 401 || response.status === 410) {
        const text = await response.clone().text()
        if (/"execution_(superseded|token_ended)"/.test(text)) {
          stop.stop({ kind: 'abandon', why: 'superseded', detail: 'the model gateway says so' })
        }
      }
      return response
    },
  }
}

async function loadCheckpoint(
  { hello, channel, stop, events }: Turn,
  harness: Harness,
): Promise<HarnessCheckpoint | undefined> {
  const { checkpoint } = hello
  if (!checkpoint) return undefined
  if (checkpoint.harness !== harness.name) {
    notice(
      events,
      'warning',
      `The conversation was kept by the harness ${checkpoint.harness}; ${harness.name} begins anew.`,
    )
    return undefined
  }
  const { format, step, blob_id } = checkpoint
  return { format, step, data: await channel.downloadBlob(blob_id, stop.working) }
}

async function saveCheckpoint(
  { channel, events, log }: Turn,
  { harness, session, signal }: { harness: string; session: HarnessSession; signal: AbortSignal },
): Promise<void> {
  const checkpoint = await session.checkpoint()
  if (!checkpoint) return
  const { format, step, data } = checkpoint
  try {
    const blobId = await channel.uploadBlob(data, { contentType: 'application/json', signal })
    events.emit({ type: 'checkpoint', data: { harness, format, step, blob_id: blobId } })
  } catch (error) {
    signal.throwIfAborted()
    if (isRefusal(error) || !(error instanceof ApiError)) throw error
    // The run can do without; only a new attempt would begin further back.
    log.warn({ err: error, step }, 'a checkpoint could not be saved')
  }
}

/** What was done of a step that was stopped is worth as much as a finished one, to a follow-up or to the next attempt. Never rejects. */
async function saveStoppedStep(
  turn: Turn,
  { harness, session }: { harness: string; session: HarnessSession },
): Promise<void> {
  if (turn.stop.ours.aborted) return
  const signal = AbortSignal.any([turn.stop.ours, AbortSignal.timeout(stoppedStepMs)])
  await saveCheckpoint(turn, { harness, session, signal }).catch((error: unknown) => {
    turn.log.warn({ err: error }, 'a stopped step could not be saved')
  })
}
