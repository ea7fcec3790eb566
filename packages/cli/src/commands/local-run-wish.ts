import {
  type AmbientAgentConfig,
  AppError,
  parseDuration,
  parseShare,
  type Share,
  type StartLocalRunRequest,
  uniteShares,
} from '@openoz/protocol'
import { textOrInput } from '../follow-up.ts'
import { readRunConfigFile } from '../run-config-file.ts'
import { readConversationId } from '../run-wishes.ts'
import { agentRunFlags, longName } from './agent-run-flags.ts'

/** What commander has read of the flags without `--task-id`. */
export interface LocalRunOptions {
  prompt?: string
  model?: string
  file?: string
  name?: string
  cwd?: string
  share?: string[]
  environment?: string
  conversation?: string
  snapshot?: boolean
  idleOnComplete?: string
  idleOnFail?: string
  harness?: string
  mcpStartupTimeout?: string
  snapshotUploadTimeout?: string
  snapshotScriptTimeout?: string
}

export interface LocalRunWish {
  request: Omit<StartLocalRunRequest, 'host'>
  savesWorkspace: boolean
  idle: { onCompleteMs: number; onFailMs: number }
  /** Sentences for whoever started it. */
  notes: string[]
}

/** Known to the reference; only the built-in one is here. */
const otherHarnesses = ['claude', 'claude-code', 'opencode', 'open-code', 'gemini', 'codex']

/** What a person asked for. Rejects with `usage`, `flag_not_available`, `share_invalid`, `flag_invalid` or `config_file_invalid`. */
export async function readLocalRunWish(
  options: LocalRunOptions,
  { given, env }: { given: readonly string[]; env: NodeJS.ProcessEnv },
): Promise<LocalRunWish> {
  refuseFlags(options, given)
  for (const name of ['snapshotUploadTimeout', 'snapshotScriptTimeout'] as const)
    duration(`--${dashed(name)}`, options[name])
  const idle = {
    onCompleteMs: duration('--idle-on-complete', options.idleOnComplete),
    onFailMs: duration('--idle-on-fail', options.idleOnFail ?? (env.OZ_IDLE_ON_FAIL?.trim() || undefined)),
  }
  const share = uniteShares((options.share ?? []).map(parseShare))
  if (options.prompt === undefined) {
    throw new AppError('usage', {
      problem: 'What shall the agent do? Give it with --prompt TEXT, or --prompt - and pipe it in.',
    })
  }
  const conversation = readConversationId(options.conversation)
  const file = options.file ?? (env.WARP_AGENT_CONFIG_FILE?.trim() || undefined)
  const { config, notes } = configOf(options, file === undefined ? {} : await readRunConfigFile(file))
  const prompt = await textOrInput(options.prompt)
  return {
    request: requestOf({ prompt, config, share, conversation }),
    savesWorkspace: options.snapshot !== false,
    idle,
    notes,
  }
}

function requestOf(parts: {
  prompt: string
  config: AmbientAgentConfig
  share: Share[]
  conversation: string | undefined
}): LocalRunWish['request'] {
  const { prompt, config, share, conversation } = parts
  return {
    prompt,
    config,
    ...(share.length > 0 ? { share } : {}),
    ...(conversation === undefined ? {} : { conversation_id: conversation }),
  }
}

/** Flags win over the file, key by key. */
function configOf(
  { name, model, environment }: LocalRunOptions,
  { worker_host: host, ...fromFile }: AmbientAgentConfig,
): { config: AmbientAgentConfig; notes: string[] } {
  const fromFlags = { name, model_id: model, environment_id: environment }
  const wanted = Object.fromEntries(Object.entries(fromFlags).filter(([, value]) => value !== undefined))
  const notes = host === undefined ? [] : [`The file’s host ${host} is left out: this run is performed here.`]
  return { config: { ...fromFile, ...wanted }, notes }
}

function refuseFlags({ harness }: LocalRunOptions, given: readonly string[]): void {
  for (const { flags, needs, needsTask } of agentRunFlags) {
    const flag = longName(flags)
    if (!given.includes(flag)) continue
    if (needs !== undefined) throw new AppError('flag_not_available', { flag, feature: needs })
    if (needsTask) throw new AppError('usage', { problem: `${flag} needs --task-id.` })
  }
  if (harness === undefined || harness === 'oz') return
  if (otherHarnesses.includes(harness)) {
    const feature = 'another harness than the built-in one'
    throw new AppError('flag_not_available', { flag: `--harness ${harness}`, feature })
  }
  throw new AppError('flag_invalid', { option: '--harness', problem: `there is no harness ${harness}` })
}

/** Milliseconds; 0 when it was not given. */
function duration(flag: string, text: string | undefined): number {
  if (text === undefined) return 0
  const ms = parseDuration(text)
  if (ms !== undefined) return ms
  throw new AppError('flag_invalid', {
    option: `${flag} ${text}`,
    problem: 'a duration is written as 45m, 10s or 1h 30m',
  })
}

function dashed(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
}
