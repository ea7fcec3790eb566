import { stat } from 'node:fs/promises'
import { AppError, type HelloResponse, type ModelAccess, repositoriesOf } from '@openoz/protocol'
import { loadCheckpoint, saveCheckpoint } from './checkpoints.ts'
import { continuationNote, type LostFiles, localContinuationNote, lostFilesNotices } from './continuation.ts'
import { notice } from './event-sink.ts'
import type { Harness, HarnessSession } from './harnesses/harness.ts'
import { selectHarness } from './harnesses/select.ts'
import type { LiveExecution, OpenSession } from './live-execution.ts'
import { type OpenModelGateway, openModelGateway } from './model-gateway.ts'
import { setupStep } from './setup-step.ts'
import { isHurried } from './stop-switch.ts'
import { isLocal, markerName, reservedVariables } from './task-environment.ts'
import { prepareRepositories, type Workspace } from './workspace/prepare.ts'
import { restoreWorkspace } from './workspace/restore.ts'
import { runSetupCommands } from './workspace/setup-commands.ts'
import { reportSkills } from './workspace/skills.ts'

/**
 * Prepares the environment and opens the harness in it, once for all turns of the execution. Rejects with the AppError that stopped the
 * preparation, or with the stop switch's reason. The harness loads while repositories are cloned and set up.
 */
export async function openSession(execution: LiveExecution): Promise<OpenSession> {
  const { hello, events, stop, kept, attachments } = execution
  const load = selectHarness(hello.config.harness?.type)
  const model = requireModel(hello)
  const loading = load()
  // It is awaited further down; until then a failure must not count as unhandled.
  loading.catch(() => {})

  const { workspace, notes } = await prepareWorkspace(execution)
  const env = await runSetupCommands({
    commands: hello.config.environment?.setup_commands ?? [],
    folder: execution.workingDirectory,
    env: execution.taskEnv,
    timeoutMs: hello.limits.setup_command_timeout_ms,
    signal: stop.working,
    sink: events,
  })
  kept.keepWorkspace({ workspace, maxBytes: hello.limits.workspace_max_bytes })
  await attachments.bring(stop.working)
  const files = attachments.note()
  if (files !== undefined) notes.push(files)
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
    restores: hello.continues !== null && !isLocal(hello),
    ...(isLocal(hello) ? { checkout: checkoutOf(execution) } : {}),
  })
  const { continues } = hello
  if (isLocal(hello)) {
    if (execution.savesWorkspace !== false) execution.workspace = workspace
    return { workspace, notes: continues ? [localContinuationNote(workingDirectory)] : [] }
  }
  // Not before: what lies in a person's own folder is not published.
  await reportSkills(workspace.repositories, events)
  if (!continues) {
    execution.workspace = workspace
    return { workspace, notes: [] }
  }

  const restored = await restoreWorkspace({
    saved: hello.workspace?.repositories ?? [],
    ...workspace,
    env: taskEnv,
    timeoutMs: hello.limits.setup_command_timeout_ms,
    signal: stop.working,
    download: (blobId, file) => channel.downloadBlobTo(file, blobId, stop.working),
  })
  // Not before: who is stopped on the way must not save the half of it in the place of the whole.
  execution.workspace = { ...workspace, repositories: restored.repositories, found: restored.found }
  for (const note of restored.notes) notice(events, 'info', `Workspace put back: ${note}`)
  const lost = continues.is_workspace_stale ? lostFilesOf(workspace) : 'none'
  if (lost !== 'none') notice(events, 'warning', lostFilesNotices[lost])
  const note = continuationNote({ reason: continues.reason, attempt: hello.attempt, lost, restored: restored.notes })
  return { workspace: execution.workspace, notes: [note] }
}

function checkoutOf({ hello, savesWorkspace, spoolDir }: LiveExecution) {
  return { maxBytes: savesWorkspace === false ? undefined : hello.limits.workspace_max_bytes, keepIn: spoolDir }
}

/**
 * A workspace that is still there is as it was left, whatever was saved of it. Its repositories say so; files that lie in none may as well be
 * those that every new workspace begins with (an image's, or what the worker's setup made).
 */
function lostFilesOf({ repositories, found = [] }: Workspace): LostFiles {
  if (repositories.length > 0) return repositories.every(({ isKept }) => isKept) ? 'none' : 'all'
  return found.length === 0 ? 'all' : 'maybe'
}

async function requireFolder(folder: string): Promise<void> {
  const found = await stat(folder).catch(() => undefined)
  if (!found?.isDirectory()) throw new AppError('working_directory_invalid', { directory: folder })
}

/** Parts of the config that have no effect here: said, not silently dropped. */
function whatDoesNotApply({ hello, env }: LiveExecution): string[] {
  const { mcp_servers, skill_spec, computer_use_enabled } = hello.config
  const texts: string[] = []
  if (isLocal(hello)) texts.push(...ofContainers(hello, 'this run works'))
  else if (env.OZ_WORKER_BACKEND === 'direct') texts.push(...ofContainers(hello, "the worker's direct backend runs"))
  const reserved = reservedVariables(hello)
  if (reserved.length > 0) texts.push(`Variables that an environment cannot set are left out: ${reserved.join(', ')}.`)
  if (Object.keys(mcp_servers ?? {}).length > 0)
    texts.push('The built-in harness does not use MCP servers; they are left out.')
  if (skill_spec) texts.push(`The built-in harness does not use skills; ${skill_spec} is left out.`)
  if (computer_use_enabled) texts.push('The built-in harness cannot use a computer’s screen; the setting is left out.')
  return texts
}

/** What is said of a container, where there is none. */
function ofContainers({ config }: LiveExecution['hello'], why: string): string[] {
  const { environment, instance_shape, additional_sidecars = [] } = config
  const what = [
    ...(environment?.docker_image ? [`The image ${environment.docker_image} does`] : []),
    ...(instance_shape ? ['The instance shape does'] : []),
    ...(additional_sidecars.length > 0 ? ['The additional sidecars do'] : []),
  ]
  return what.map((words) => `${words} not apply: ${why} on the machine itself.`)
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
  const { hello, events, masker, stop, log, kept, unsaved, lease } = execution
  const { working } = stop
  const { name } = harness
  const session: HarnessSession = await harness.open({
    ...place,
    runId: hello.run_id,
    config: hello.config,
    mode: hello.mode,
    limits: hello.limits,
    sink: events,
    checkpoint: await loadCheckpoint(execution, harness, working),
    keep: (checkpoint) => {
      unsaved.add('checkpoint')
      kept.keepCheckpoint({ ...checkpoint, harness: name })
      // An answer is whole, its tools come next.
      lease.check()
    },
    stepFinished: () => saveCheckpoint(execution, { harness: name, session, signal: working }),
    keepOutput: (file, mediaType = 'text/plain; charset=utf-8') => keepFile(execution, file, mediaType),
    scratchFolder: execution.spoolDir,
    masker,
    log,
  })
  return session
}

/** How long the end of a stopped execution may wait for a file; after SIGTERM there are seconds for everything. */
const stoppedUploadMs = 4_000
const terminatedUploadMs = 500

/** Also of what was stopped, where that takes a moment only. undefined: it could not be kept. Never rejects. */
async function keepFile(
  { channel, stop, log }: LiveExecution,
  file: string,
  contentType: string,
): Promise<string | undefined> {
  const patience = new AbortController()
  let timer: NodeJS.Timeout | undefined
  const onStop = () => {
    const ms = isHurried(stop.reason) ? terminatedUploadMs : stoppedUploadMs
    timer = setTimeout(() => patience.abort(), ms)
  }
  if (stop.working.aborted) onStop()
  else stop.working.addEventListener('abort', onStop, { once: true })
  try {
    return await channel.uploadBlob({ file }, { contentType, signal: AbortSignal.any([patience.signal, stop.saving]) })
  } catch (error) {
    if (!stop.working.aborted) log.warn({ err: error }, 'a file could not be kept')
    return undefined
  } finally {
    clearTimeout(timer)
    stop.working.removeEventListener('abort', onStop)
  }
}
