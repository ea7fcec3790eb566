import { sleep } from '@openoz/machine'
import {
  type AmbientAgentConfig,
  AppError,
  type CreateRunRequest,
  type CreateRunResponse,
  isTerminal,
  type Run,
} from '@openoz/protocol'
import { readAttachments } from '../attachments.ts'
import type { CommandContext } from '../command-context.ts'
import type { Connection } from '../connection.ts'
import { requireText } from '../follow-up.ts'
import { printJson } from '../output.ts'
import { oneLine } from '../plain-text.ts'
import { repositoryUrl } from '../repository-text.ts'
import { readRunConfigFile } from '../run-config-file.ts'
import { readConversationId, readMetadata, readPromptMode } from '../run-wishes.ts'
import { sendOnce } from '../send-once.ts'
import { paintState } from '../state-colors.ts'

export interface RunCloudOptions {
  prompt: string
  host?: string
  model?: string
  repo: string[]
  vcpus?: number
  memoryGb?: number
  setupCommand: string[]
  /** Id of a stored one; false: none. */
  environment?: string | false
  name?: string
  title?: string
  file?: string
  conversation?: string
  parentRunId?: string
  team?: boolean
  personal?: boolean
  attach?: string[]
  metadata?: string[]
  maxAttempts?: number
  watch?: boolean
}

type Context = CommandContext & { connection: Connection }

/** Exit code 0 once the run was accepted, whatever becomes of it; with `--watch` that of `oz run watch`. */
export async function runCloud(context: Context, options: RunCloudOptions): Promise<number> {
  const { connection, output } = context
  requireText(options.prompt)
  const fromFile = options.file === undefined ? {} : await readRunConfigFile(options.file)
  const attachments = await readAttachments(options.attach ?? [])
  const request = { ...runRequest(options, fromFile), ...(attachments.length > 0 && { attachments }) }
  const created = await sendOnce((once) => connection.client.runs.create(request, once))
  if (options.watch) {
    if (!output.isJson) output.line(`Spawned ambient agent with run ID: ${created.run_id}`)
    const { watchRun } = await import('../watch/watch-run.ts')
    return watchRun(context, { runId: created.run_id })
  }
  if (output.isJson) {
    printJson(output, created)
    return 0
  }
  output.line(`Spawned ambient agent with run ID: ${created.run_id}`)
  output.line(`Watch it: oz run watch ${created.run_id}`)
  const run = await waitForStart(connection, created)
  output.line(`Agent state: ${paintState(run.state, output.colors)}`)
  if (run.status_message) output.line(oneLine(run.status_message.message))
  return 0
}

/** Flags win over the file, key by key; what they say of the environment replaces all that the file says of it. */
export function runRequest(options: RunCloudOptions, fromFile: AmbientAgentConfig): CreateRunRequest {
  const fromFlags = {
    name: options.name,
    model_id: options.model,
    worker_host: options.host,
    instance_shape: shapeOf(options, fromFile),
  }
  const { environment, environment_id, ...rest } = fromFile
  const config = {
    ...rest,
    ...(environmentOf(options) ?? { environment, environment_id }),
    ...Object.fromEntries(Object.entries(fromFlags).filter(([, value]) => value !== undefined)),
  }
  return {
    ...readPromptMode(options.prompt),
    metadata: readMetadata(options.metadata ?? []),
    title: options.title,
    config,
    conversation_id: readConversationId(options.conversation),
    parent_run_id: options.parentRunId,
    team: options.team ? true : options.personal ? false : undefined,
    ...(options.maxAttempts !== undefined && { retry: { max_attempts: options.maxAttempts } }),
  }
}

/** undefined: the flags say nothing of it. */
function shapeOf(
  { vcpus, memoryGb }: RunCloudOptions,
  { instance_shape: shape }: AmbientAgentConfig,
): AmbientAgentConfig['instance_shape'] {
  if (vcpus === undefined && memoryGb === undefined) return undefined
  const wanted = { vcpus: vcpus ?? shape?.vcpus, memory_gb: memoryGb ?? shape?.memory_gb }
  if (wanted.vcpus === undefined) throw new AppError('flag_invalid', { option: '--memory-gb', problem: needsBoth })
  if (wanted.memory_gb === undefined) throw new AppError('flag_invalid', { option: '--vcpus', problem: needsBoth })
  return { vcpus: wanted.vcpus, memory_gb: wanted.memory_gb }
}

const needsBoth = 'a container gets both --vcpus and --memory-gb, or all that its machine has'

/** What the flags say of it, if anything. None is said as an empty one: a conversation that is continued would bring its own. */
function environmentOf({ environment, repo, setupCommand }: RunCloudOptions): AmbientAgentConfig | undefined {
  if (repo.length + setupCommand.length > 0) {
    const source_repos = repo.map((url) => ({ url: repositoryUrl(url) }))
    return { environment: { source_repos, setup_commands: setupCommand } }
  }
  if (environment === undefined) return undefined
  return environment === false ? { environment: {} } : { environment_id: environment }
}

/** As long as the reference waits for a session to join. */
const longestWaitMs = 80_000

/** Until its agent works, or it is clear that it does not begin by itself right now. */
async function waitForStart(connection: Connection, created: CreateRunResponse): Promise<Run> {
  const deadline = performance.now() + longestWaitMs
  for (let pauseMs = 100; ; pauseMs = Math.min(pauseMs * 1.5, 3_000)) {
    const run = await connection.client.runs.get(created.run_id)
    const waitsForWorker = run.state === 'QUEUED' && created.at_capacity && run.status_message !== undefined
    if (run.state === 'INPROGRESS' || run.state === 'BLOCKED' || isTerminal(run.state) || waitsForWorker) return run
    if (performance.now() > deadline) return run
    await sleep(pauseMs)
  }
}
