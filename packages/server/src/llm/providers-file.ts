import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { AppError } from '@openoz/protocol'
import { z } from 'zod'
import { providerKinds } from './model-provider.ts'
import { makeByKind } from './provider-kinds.ts'
import { type FoundProviders, read } from './providers.ts'

/**
 * Providers under names of the user's own: several accounts, regions and servers at once. The file says where a key is, never the key: it can be
 * checked in and shown around.
 */
const namedProvider = z
  .strictObject({
    /** First segment of its models' ids. */
    name: z.string().regex(/^[a-z0-9][a-z0-9-]*$/, 'must be lower-case letters, digits and dashes'),
    type: z.enum(providerKinds),
    base_url: z.string().min(1).optional(),
    /** Variable of the server's environment. */
    api_key_env: z
      .string()
      .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'must be the name of a variable')
      .optional(),
    /** Relative to the folder of this file. */
    api_key_file: z.string().min(1).optional(),
    region: z
      .string()
      .regex(/^[a-z0-9-]+$/, 'must be a region such as eu-central-1')
      .optional(),
    api_version: z
      .string()
      .regex(/^[\w-]+$/, 'must be a version such as 2024-10-21')
      .optional(),
  })
  .superRefine((provider, context) => {
    const problem = problemOf(provider)
    if (problem) context.addIssue({ code: 'custom', message: problem })
  })

type NamedProvider = z.infer<typeof namedProvider>

function problemOf({ type, base_url, api_key_env, api_key_file, region, api_version }: NamedProvider) {
  if (api_key_env !== undefined && api_key_file !== undefined) return 'api_key_env and api_key_file exclude each other'
  if ((type === 'openai-compatible' || type === 'azure') && base_url === undefined) return `${type} needs base_url`
  if (type === 'bedrock' && base_url === undefined && region === undefined) return 'bedrock needs region or base_url'
  if (type !== 'bedrock' && region !== undefined) return `region is of bedrock, not of ${type}`
  if (type !== 'azure' && api_version !== undefined) return `api_version is of azure, not of ${type}`
  return undefined
}

const option = 'OZ_PROVIDERS_FILE'

/** Adds what the file names to what the environment does. Throws `option_invalid` for a file that cannot be used; a key that is not there makes one provider unusable. */
export function addNamedProviders(
  found: FoundProviders,
  file: string | null,
  env: Record<string, string | undefined>,
): FoundProviders {
  if (file === null) return found
  const names = new Set(found.providers.map(({ name }) => name))
  const named: FoundProviders = { providers: [], missing: [] }
  for (const settings of readFile(file)) {
    const { name, type } = settings
    if (names.has(name)) throw invalid(`two providers are called ${name}, in the file or in the environment`)
    names.add(name)
    const key = readKey(settings, file, env)
    if ('reason' in key) named.missing.push({ name, reason: key.reason })
    else
      named.providers.push(
        makeByKind[type]({
          name,
          key: key.value,
          base: settings.base_url ?? '',
          baseOption: `base_url of ${name} in ${file}`,
          region: settings.region ?? '',
          apiVersion: settings.api_version ?? '',
        }),
      )
  }
  return {
    providers: [...found.providers, ...named.providers],
    missing: [...found.missing.filter(({ name }) => !names.has(name)), ...named.missing],
  }
}

/** Nothing of the file's text is repeated in errors: somebody may have put a key into it after all. */
function readFile(file: string): NamedProvider[] {
  let json: unknown
  try {
    json = JSON.parse(readFileSync(file, 'utf8'))
  } catch (error) {
    throw invalid(error instanceof SyntaxError ? `${file} is not JSON` : `${file} cannot be read`)
  }
  const parsed = z.array(namedProvider).safeParse(json)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const place = issue && issue.path.length > 0 ? ` at ${issue.path.join('.')}` : ''
  const keys = issue?.code === 'unrecognized_keys' ? issue.keys : []
  if (keys.some((key) => /key|token|secret|password/i.test(key)))
    throw invalid(`${file} has a key in it${place}; name its variable (api_key_env) or its file (api_key_file) instead`)
  throw invalid(`${file} does not fit${place}: ${issue?.message ?? 'it is no list of providers'}`)
}

function readKey(
  { api_key_env: variable, api_key_file: keyFile }: NamedProvider,
  file: string,
  env: Record<string, string | undefined>,
): { value: string } | { reason: string } {
  if (variable !== undefined) {
    const value = read(env, variable)
    return value ? { value } : { reason: `${variable} is not set` }
  }
  if (keyFile === undefined) return { value: '' }
  const path = resolve(dirname(file), keyFile)
  try {
    const value = readFileSync(path, 'utf8').trim()
    return value ? { value } : { reason: `the key file ${path} is empty` }
  } catch {
    return { reason: `the key file ${path} cannot be read` }
  }
}

function invalid(problem: string): AppError {
  return new AppError('option_invalid', { option, problem })
}
