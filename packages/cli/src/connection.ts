import { createDialer, type Dialer } from '@openoz/machine'
import { type ApiClient, type ApiFetch, AppError, createApiClient } from '@openoz/protocol'
import type { GlobalOptions } from './global-options.ts'
import { readSavedLogin, type SavedLogin } from './saved-login.ts'

/** Where `oz server` listens unless it is told otherwise. */
const defaultServerUrl = 'http://127.0.0.1:4747'

export interface ServerLogin {
  serverUrl: string
  /** undefined: nobody gave one. */
  apiKey: string | undefined
  /** Where each came from, in words for `oz doctor`. */
  from: { serverUrl: string; apiKey: string }
}

export interface Connection extends AsyncDisposable {
  client: ApiClient
  dialer: Dialer
  serverUrl: string
  apiKey: string
}

/** Address and key: flags, then OZ_ variables, then WARP_ variables, then the saved login. */
export async function findLogin(
  options: Pick<GlobalOptions, 'apiKey' | 'serverUrl' | 'serverRootUrl'>,
  env: NodeJS.ProcessEnv,
): Promise<ServerLogin> {
  const saved = await readSavedLogin(env)
  const [serverUrl, urlFrom] = firstOf([
    [options.serverUrl, '--server-url'],
    [options.serverRootUrl, '--server-root-url'],
    [env.OZ_SERVER_URL, 'OZ_SERVER_URL'],
    [env.WARP_SERVER_ROOT_URL, 'WARP_SERVER_ROOT_URL'],
    [saved?.server_url, 'the saved login'],
    [defaultServerUrl, 'the default'],
  ]) ?? [defaultServerUrl, 'the default']
  const [apiKey, keyFrom] = firstOf([
    [options.apiKey, '--api-key'],
    [env.OZ_API_KEY, 'OZ_API_KEY'],
    [env.WARP_API_KEY, 'WARP_API_KEY'],
    [keyFor(serverUrl, saved), 'the saved login'],
  ]) ?? [undefined, 'nowhere']
  return {
    serverUrl,
    apiKey: apiKey === undefined ? undefined : withPrefix(apiKey),
    from: { serverUrl: urlFrom, apiKey: keyFrom },
  }
}

/** Rejects as `requireLogin` does. Nothing is sent yet. */
export async function connect(options: GlobalOptions, env: NodeJS.ProcessEnv): Promise<Connection> {
  return openConnection({ ...(await requireLogin(options, env)), env })
}

/**
 * For everything that acts in somebody's name: a key that was meant and is empty (a secret that a pipeline does not have) is an error, and never
 * stands back for the next one. `oz login` and `oz doctor`, which mend just that, use `findLogin`. Rejects with `api_key_variable_empty`,
 * `flag_invalid` or `not_logged_in`.
 */
export async function requireLogin(
  options: Pick<GlobalOptions, 'apiKey' | 'serverUrl' | 'serverRootUrl'>,
  env: NodeJS.ProcessEnv,
): Promise<{ serverUrl: string; apiKey: string }> {
  if (options.apiKey?.trim() === '') throw new AppError('flag_invalid', { option: '--api-key', problem: 'it is empty' })
  for (const variable of options.apiKey === undefined ? ['OZ_API_KEY', 'WARP_API_KEY'] : []) {
    const value = env[variable]
    if (value === undefined) continue
    if (value.trim() === '') throw new AppError('api_key_variable_empty', { variable })
    break
  }
  const { serverUrl, apiKey } = await findLogin(options, env)
  if (apiKey === undefined) throw new AppError('not_logged_in')
  return { serverUrl, apiKey }
}

interface ConnectionOptions {
  serverUrl: string
  apiKey: string
  env: NodeJS.ProcessEnv
  /** Stops what the client asks. */
  signal?: AbortSignal
  /** For everything that the client asks, counted from now. */
  timeoutMs?: number
}

export function openConnection(login: ConnectionOptions): Connection {
  const dialer = createDialer({ serverUrl: login.serverUrl, env: login.env })
  return {
    client: createApiClient({ fetch: limited(withSource(dialer, login.env), login), apiKey: login.apiKey }),
    dialer,
    serverUrl: dialer.serverUrl,
    apiKey: login.apiKey,
    [Symbol.asyncDispose]: () => dialer.close(),
  }
}

function limited(send: ApiFetch, { signal, timeoutMs }: ConnectionOptions): ApiFetch {
  const limits = [...(signal ? [signal] : []), ...(timeoutMs === undefined ? [] : [AbortSignal.timeout(timeoutMs)])]
  if (limits.length === 0) return send
  const limit = AbortSignal.any(limits)
  return (path, init) => send(path, { ...init, signal: limit })
}

/** Runs say where they were started from; the GitHub Action starts them through this program. */
function withSource(dialer: Dialer, env: NodeJS.ProcessEnv): ApiFetch {
  const source = env.GITHUB_ACTIONS === 'true' ? 'GITHUB_ACTION' : 'CLI'
  return (path, init) => {
    const headers = new Headers(init.headers)
    headers.set('x-oz-api-source', source)
    return dialer.fetch(path, { ...init, headers })
  }
}

function firstOf(candidates: [string | undefined, string][]): [string, string] | undefined {
  for (const [value, from] of candidates) if (value !== undefined && value.trim() !== '') return [value.trim(), from]
  return undefined
}

/** A saved key is for the server that it was saved with: nobody else is shown it. */
function keyFor(serverUrl: string, saved: SavedLogin | undefined): string | undefined {
  return saved !== undefined && isSameServer(serverUrl, saved.server_url) ? saved.api_key : undefined
}

/** The names of this machine count as one: `localhost` and `127.0.0.1` lead to the same server. */
export function isSameServer(a: string, b: string): boolean {
  return serverName(a) === serverName(b)
}

function serverName(serverUrl: string): string {
  const trimmed = serverUrl.replace(/\/+$/, '')
  if (!URL.canParse(trimmed)) return trimmed
  const url = new URL(trimmed)
  if (['localhost', '127.0.0.1', '[::1]'].includes(url.hostname)) url.hostname = '127.0.0.1'
  return url.href
}

/** As the reference does: people paste keys without it. */
function withPrefix(apiKey: string): string {
  return apiKey.startsWith('wk-') ? apiKey : `wk-${apiKey}`
}
