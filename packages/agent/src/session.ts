import { stat } from 'node:fs/promises'
import { AppError, type HelloResponse, type ModelAccess, repositoriesOf } from '@openoz/protocol'
import { loadCheckpoint, saveCheckpoint } from './checkpoints.ts'
import { continuationNote, staleWorkspaceNotice } from './continuation.ts'
import { notice } from './event-sink.ts'
import type { Harness, HarnessSession } from './harnesses/harness.ts'
import { selectHarness } from './harnesses/select.ts'
import type { LiveExecution } from './live-execution.ts'
import { type OpenModelGateway, openModelGateway } from './model-gateway.ts'
import { setupStep } from './setup-step.ts'
import { markerName } from './task-environment.ts'
import { prepareRepositories, type Workspace } from './workspace/prepare.ts'
import { restoreWorkspace } from './workspace/restore.ts'
import { runSetupCommands } from './workspace/setup-commands.ts'

/** A harness at the execution's conversation, in its workspace. */
export interface OpenSession {
  session: HarnessSession
  /** The harness's name. */
  harness: string
  /** Ends what the session started, and its way to the model. Never rejects. */
  close(): Promise<void>
}

/**
 * Prepares the environment and opens the harness in it, once for all turns of the execution. Rejects with the AppError that stopped the
 * preparation, or with the stop switch's reason. The harness loads while repositories are cloned and set up.
 */
export async function openSession(execution: LiveExecution): Promise<OpenSession> {
  const { hello, events, stop, kept } = execution
  const load = selectHarness(hello.config.harness?.type)
  const model = requireModel(hello)
  const loading = load()
  // It is awaited further down; until then a failure must not count as unhandled.
  loading.catch(() => {})

  const { workspace, notes } = await prepareWorkspace(execution)
  const env = await runSetupCommands({
    commands: hello.config.environment?.setup_commands ?? [],
    folder: workspace.folder,
    env: execution.taskEnv,
    timeoutMs: hello.limits.setup_command_timeout_ms,
    signal: stop.working,
    sink: events,
  })
  kept.keepWorkspace({ workspace, maxBytes: hello.limits.workspace_max_bytes })
  const harness = await setupStep(events, { step: 'harness' }, () => loading)
  // Whatever the setup did to the environment: the end of the run finds its processes by the marker.
  const taskEnv = { ...env, [markerName]: execution.taskEnv[markerName] }
  const gateway = openModelGateway(execution)
  try {
    const session = await openHarness(execution, { harness, model, workspace, notes, env: taskEnv, gateway })
    const close = async () => {
      await session.close()
      await gateway.close()
    }
    return { session, harness: harness.name, close }
  } catch (error) {
    await gateway.close()
    throw error
  }
}

function requireModel({ model, model_problem, config }: HelloResponse): ModelAccess {
  if (model) return model
  const error = new AppError('model_provider_missing', { forModel: config.model_id ? ` for ${config.model_id}` : '' })
  // The control plane knows better what is missing there.
  if (model_problem) error.message = model_problem
  throw error
}

/** Fills the workspace. Answers what the model must be told about it. */
async function prepareWorkspace(execution: LiveExecution): Promise<{ workspace: Workspace; notes: string[] }> {
  const { hello, events, stop, taskEnv, masker, workingDirectory, channel } = execution
  await setupStep(events, { step: 'workspace' }, () => requireFolder(workingDirectory))
  for (const text of whatDoesNotApply(execution)) notice(events, 'info', text)
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
  execution.workspace = workspace
  const { continues } = hello
  if (!continues) return { workspace, notes: [] }

  const restored = await restoreWorkspace({
    saved: hello.workspace?.repositories ?? [],
    ...workspace,
    env: taskEnv,
    timeoutMs: hello.limits.setup_command_timeout_ms,
    signal: stop.working,
    download: (blobId, file) => channel.downloadBlobTo(file, blobId, stop.working),
  })
  execution.workspace = { ...workspace, repositories: restored.repositories }
  for (const note of restored.notes) notice(events, 'info', `Workspace put back: ${note}`)
  const isStale = continues.is_workspace_stale && isFresh(execution.workspace)
  if (isStale) notice(events, 'warning', staleWorkspaceNotice)
  const note = continuationNote({ reason: continues.reason, attempt: hello.attempt, isStale, restored: restored.notes })
  return { workspace: execution.workspace, notes: [note] }
}

/** A workspace that is still there is as it was left, whatever was saved of it. */
function isFresh({ repositories, found = [] }: Workspace): boolean {
  return repositories.length > 0 ? repositories.some(({ isKept }) => !isKept) : found.length === 0
}

async function requireFolder(folder: string): Promise<void> {
  const found = await stat(folder).catch(() => undefined)
  if (!found?.isDirectory()) throw new AppError('working_directory_invalid', { directory: folder })
}

/** Parts of the config that have no effect here: said, not silently dropped. */
function whatDoesNotApply({ hello, env }: LiveExecution): string[] {
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

interface Place {
  harness: Harness
  model: ModelAccess
  workspace: Workspace
  notes: string[]
  env: NodeJS.ProcessEnv
  gateway: OpenModelGateway
}

async function openHarness(execution: LiveExecution, { harness, ...place }: Place): Promise<HarnessSession> {
  const { hello, events, masker, stop, channel, log, kept, unsaved } = execution
  const { working } = stop
  const { name } = harness
  const session: HarnessSession = await harness.open({
    ...place,
    runId: hello.run_id,
    config: hello.config,
    limits: hello.limits,
    sink: events,
    checkpoint: await loadCheckpoint(execution, harness),
    keep: (checkpoint) => {
      unsaved.add('checkpoint')
      kept.keepCheckpoint({ ...checkpoint, harness: name })
    },
    stepFinished: () => saveCheckpoint(execution, { harness: name, session, signal: working }),
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
