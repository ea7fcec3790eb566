import { AppError, parseDuration } from '@openoz/protocol'
import { parse } from 'yaml'
import { z } from 'zod'
import { type EnvironmentEntry, environmentEntry, text } from './config-entries.ts'
import { type DockerBlock, dockerBlock } from './docker-options.ts'
import { type DrainMode, drainModes } from './worker-options.ts'

/**
 * The worker's YAML file. Strict: a key that is not here is an error that names its path, so that a misspelt limit never means "no limit".
 * Keys of backends that this version does not have are known by name (`backend_not_available`), not unknown.
 */
export interface ConfigFile {
  worker_id?: string
  cleanup?: boolean
  max_concurrent_tasks?: number
  idle_on_complete?: string
  drain?: DrainMode
  backend?: {
    docker?: DockerBlock | null
    kubernetes?: unknown
    command?: unknown
    direct?: {
      workspace_root?: string
      state_dir?: string
      target_dir?: string
      oz_path?: string
      setup_command?: string
      teardown_command?: string
      environment?: EnvironmentEntry[]
      hidden_paths?: string[]
      readable_paths?: string[]
    } | null
  }
}

const configFile = z.strictObject({
  worker_id: text.regex(/^\S+$/, 'must not contain whitespace').optional(),
  cleanup: z.boolean().optional(),
  max_concurrent_tasks: z.int().min(0, 'must be 0 (no limit) or more').optional(),
  idle_on_complete: text
    .refine((value) => parseDuration(value) !== undefined, 'must be a duration such as 45m, 1h 30m or 0s')
    .optional(),
  drain: z.enum(drainModes).optional(),
  backend: z
    .strictObject({
      docker: dockerBlock.nullable().optional(),
      kubernetes: z.unknown().optional(),
      command: z.unknown().optional(),
      direct: z
        .strictObject({
          workspace_root: text.optional(),
          state_dir: text.optional(),
          target_dir: text.optional(),
          oz_path: text.optional(),
          setup_command: text.optional(),
          teardown_command: text.optional(),
          environment: z.array(environmentEntry).optional(),
          hidden_paths: z.array(text).optional(),
          readable_paths: z.array(text).optional(),
        })
        .nullable()
        .optional(),
    })
    .optional(),
})

const keyNames = /^(api_?key|warp_?api_?key|oz_?api_?key)$/i

/** Throws `config_file_invalid` with the path of the first thing that is wrong. */
export function parseConfigFile(content: string, file: string): ConfigFile {
  let document: unknown
  try {
    document = parse(content) ?? {}
  } catch (error) {
    throw invalid(file, error instanceof Error ? (error.message.split('\n')[0] ?? '') : 'it is no YAML')
  }
  refuseKeys(document, file)
  const result = configFile.safeParse(document)
  if (!result.success) throw invalid(file, describeIssue(result.error.issues[0]))
  const backends = Object.keys(result.data.backend ?? {})
  if (backends.length > 1) throw invalid(file, `at most one backend may be configured, not ${backends.join(' and ')}`)
  return result.data
}

/** Files are copied, mounted and committed; keys in them end up where nobody meant them to be. */
function refuseKeys(document: unknown, file: string): void {
  if (!isMap(document)) return
  const backend = isMap(document.backend) ? document.backend : {}
  const blocks = [document, backend, ...Object.values(backend)].filter(isMap)
  const key = blocks.flatMap((block) => Object.keys(block)).find((name) => keyNames.test(name))
  const entry = blocks
    .flatMap((block) => (Array.isArray(block.environment) ? block.environment : []))
    .filter(isMap)
    .find(({ name, value }) => typeof name === 'string' && keyNames.test(name) && value !== undefined)
  const found = key ?? entry?.name
  if (found === undefined) return
  throw invalid(
    file,
    `${String(found)} must not be in a config file; set OZ_API_KEY in the worker's environment instead`,
  )
}

function describeIssue(issue: z.core.$ZodIssue | undefined): string {
  if (!issue) return 'it does not fit'
  const path = issue.path.map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`)).join('')
  const at = path.replace(/^\./, '')
  if (issue.code === 'unrecognized_keys') {
    const keys = issue.keys.map((key) => (at === '' ? key : `${at}.${key}`))
    return `unknown key ${keys.join(', ')}`
  }
  if (at === '') return 'it must be a map of keys'
  if (issue.code === 'invalid_type') {
    return issue.input === undefined && /received undefined/.test(issue.message)
      ? `${at} is required`
      : `${at} must be ${article(issue.expected)}`
  }
  return `${at} ${issue.message}`
}

function article(expected: string): string {
  const names: Record<string, string> = { int: 'a whole number', object: 'a map of keys', record: 'a map of keys' }
  return names[expected] ?? (/^[aeio]/.test(expected) ? `an ${expected}` : `a ${expected}`)
}

function invalid(file: string, problem: string): AppError {
  return new AppError('config_file_invalid', { file, problem })
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
