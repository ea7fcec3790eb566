import { AppError } from '@openoz/protocol'

/** Where the control plane is. */
export interface ServerAddress {
  /** Always http or https, without a slash at the end; `http://localhost` behind a unix socket. */
  base: URL
  /** Path of the unix socket that leads to the server. */
  socketPath?: string
  /** What people may be shown: no credentials, no query. */
  display: string
}

/** Takes `http://…`, `https://…` (a path prefix is kept) and `unix:/path/to.sock`. Throws `option_invalid` for everything else. */
export function parseServerAddress(serverUrl: string): ServerAddress {
  if (serverUrl.startsWith('unix:')) {
    const socketPath = serverUrl.slice('unix:'.length).replace(/^\/\//, '')
    if (!socketPath.startsWith('/')) throw invalid('a unix address is `unix:` and an absolute path')
    return { base: new URL('http://localhost'), socketPath, display: `unix:${socketPath}` }
  }
  const base = URL.canParse(serverUrl) ? new URL(serverUrl) : undefined
  if (!base || (base.protocol !== 'http:' && base.protocol !== 'https:')) {
    throw invalid('it must begin with http://, https:// or unix:')
  }
  // fetch refuses such addresses, and they would be printed wherever an address is.
  if (base.username || base.password) throw invalid('it must not hold a user name or password')
  base.pathname = base.pathname.replace(/\/+$/, '')
  base.search = ''
  base.hash = ''
  return { base, display: base.href.replace(/\/$/, '') }
}

/** The URL of a path on the server; an absolute URL stays what it is, with `ws` and `wss` read as `http` and `https`. */
export function urlOnServer(address: ServerAddress, path: string | URL): URL {
  if (typeof path === 'string' && path.startsWith('/')) {
    return new URL(address.base.origin + address.base.pathname.replace(/\/$/, '') + path)
  }
  if (!URL.canParse(String(path)))
    throw new AppError('option_invalid', { option: 'path', problem: 'no URL and no path' })
  return new URL(String(path).replace(/^ws(s?):/, 'http$1:'))
}

function invalid(problem: string): AppError {
  return new AppError('option_invalid', { option: 'The server address', problem })
}
