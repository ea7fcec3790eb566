/**
 * The operator's login for a registry, where `docker login` left it: a credential helper for this registry, the helper for all, or config.json
 * itself. It is read anew for each pull, goes to the engine in a header, and nowhere else: what helpers write is never part of a message.
 */

import { spawn } from 'node:child_process'
import { AppError } from '@openoz/protocol'
import { type DockerConfig, readDockerConfig } from './docker-config.ts'
import { hubHost } from './image-reference.ts'

/** What the engine is to show the registry; one of the two ways, or a name and a password. */
interface RegistryLogin {
  username?: string
  password?: string
  /** From a login by a browser, in the place of a password. */
  identitytoken?: string
  registrytoken?: string
}

/** The name under which Docker Hub's logins are stored. */
const hubKey = 'https://index.docker.io/v1/'
const helperLimitMs = 10_000
const maxHelperBytes = 64 * 1024
/** A helper's answer in the place of a name: what it calls the secret is an identity token. */
const tokenUser = '<token>'

/**
 * The header `X-Registry-Auth` for this registry; undefined when there is no login for it. Rejects with `credential_helper_failed` or
 * `docker_config_unreadable`, or with the signal's reason.
 */
export async function registryAuth(
  host: string,
  env: NodeJS.ProcessEnv,
  signal?: AbortSignal,
): Promise<string | undefined> {
  const config = readDockerConfig(env)
  const key = host === hubHost ? hubKey : host
  const helper = entryOf(config.credHelpers, host) ?? config.credsStore
  const login = (helper && (await askHelper({ helper, host, key, env, signal }))) || storedLogin(config, host)
  return login && encodeLogin({ ...login, serveraddress: key })
}

/** base64 in the alphabet of URLs and with its padding, without which older engines silently take it for none. */
function encodeLogin(login: RegistryLogin & { serveraddress: string }): string {
  return Buffer.from(JSON.stringify(login)).toString('base64').replaceAll('+', '-').replaceAll('/', '_')
}

function storedLogin({ auths }: DockerConfig, host: string): RegistryLogin | undefined {
  // With a helper the entry is there and empty.
  const { auth, username, password, identitytoken, registrytoken } = entryOf(auths, host) ?? {}
  if (identitytoken) return { identitytoken }
  if (registrytoken) return { registrytoken }
  if (username && password) return { username, password }
  const text = Buffer.from(auth ?? '', 'base64').toString('utf8')
  const colon = text.indexOf(':')
  if (colon <= 0) return undefined
  // Docker on Windows has padded passwords.
  return { username: text.slice(0, colon), password: text.slice(colon + 1).replace(/\0+$/, '') }
}

/** Registries are stored as hosts, and by older programs with scheme and path. */
function entryOf<T>(entries: Record<string, T> | undefined, host: string): T | undefined {
  const names = host === hubHost ? [hubHost, 'index.docker.io', 'registry-1.docker.io'] : [host]
  const found = Object.keys(entries ?? {}).filter((stored) => names.includes(hostIn(stored)))
  const exact = found.find((stored) => stored === host || stored === hubKey)
  return entries?.[exact ?? found[0] ?? '']
}

function hostIn(stored: string): string {
  return stored.replace(/^https?:\/\//, '').replace(/\/.*$/, '')
}

interface HelperCall {
  helper: string
  host: string
  key: string
  env: NodeJS.ProcessEnv
  signal?: AbortSignal
}

/** undefined: it has no login for this registry. */
async function askHelper({ helper, host, key, env, signal }: HelperCall): Promise<RegistryLogin | undefined> {
  const program = `docker-credential-${helper}`
  const fail = (problem: string) => new AppError('credential_helper_failed', { helper: program, host, problem })
  // It becomes the name of a program.
  if (!/^[\w.-]+$/.test(helper)) throw fail('that is not the name of a helper')
  const { code, output } = await runHelper({ program, key, env, signal }, fail)
  if (code !== 0) {
    if (/credentials not found in native keychain/i.test(output)) return undefined
    throw fail(`it ended with exit code ${code}`)
  }
  const { username, secret } = parseAnswer(output, fail)
  if (secret === '') return undefined
  return username === tokenUser ? { identitytoken: secret } : { username, password: secret }
}

function parseAnswer(output: string, fail: (problem: string) => AppError): { username: string; secret: string } {
  try {
    const { Username, Secret } = JSON.parse(output) as { Username?: unknown; Secret?: unknown }
    if (typeof Username === 'string' && typeof Secret === 'string') return { username: Username, secret: Secret }
  } catch {
    // The parser would quote it.
  }
  throw fail('its answer has no Username and Secret')
}

async function runHelper(
  { program, key, env, signal }: { program: string; key: string; env: NodeJS.ProcessEnv; signal?: AbortSignal },
  fail: (problem: string) => AppError,
): Promise<{ code: number | null; output: string }> {
  signal?.throwIfAborted()
  const { OZ_API_KEY: _, WARP_API_KEY: __, ...rest } = env
  const child = spawn(program, ['get'], { env: rest, stdio: ['pipe', 'pipe', 'ignore'] })
  const { promise, resolve, reject } = Promise.withResolvers<{ code: number | null; output: string }>()
  const end = (reason: unknown) => {
    child.kill('SIGKILL')
    // A process of its own may still hold the pipe.
    child.stdout.destroy()
    reject(reason)
  }
  const onAbort = () => end(signal?.reason)
  const timer = setTimeout(() => end(fail(`it did not answer within ${helperLimitMs / 1000} s`)), helperLimitMs)
  signal?.addEventListener('abort', onAbort, { once: true })
  const chunks: Buffer[] = []
  let bytes = 0
  child.stdout.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    chunks.push(chunk)
    if (bytes > maxHelperBytes) end(fail('its answer is too long'))
  })
  child.once('error', (error: NodeJS.ErrnoException) =>
    reject(
      fail(error.code === 'ENOENT' ? 'there is no such program on the PATH' : `it cannot be started (${error.code})`),
    ),
  )
  child.once('close', (code) => resolve({ code, output: Buffer.concat(chunks).toString('utf8') }))
  // One that asks nothing does not read.
  child.stdin.on('error', () => {})
  child.stdin.end(`${key}\n`)
  try {
    return await promise
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', onAbort)
  }
}
