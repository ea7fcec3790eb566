import { spawn } from 'node:child_process'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** Repositories of a folder over HTTP, as a host of git serves them (`git http-backend`), with a login where one is asked for. */
export interface GitHttpServer extends AsyncDisposable {
  /** Of the repository in this folder, without a login. */
  url(name: string): string
  /** `METHOD /path?query`, of requests that were let in. */
  requests: string[]
  /** Requests without the login, or with a wrong one. */
  refused: number
  /** As long as this lasts nothing is answered. */
  hold: Promise<void> | undefined
}

export async function startGitHttpServer(
  root: string,
  { login }: { login?: { user: string; password: string } } = {},
): Promise<GitHttpServer> {
  const expected = login && `Basic ${Buffer.from(`${login.user}:${login.password}`).toString('base64')}`
  const server = createServer(async (request, response) => {
    await state.hold
    if (expected !== undefined && request.headers.authorization !== expected) {
      state.refused += 1
      response.writeHead(401, { 'www-authenticate': 'Basic realm="git"' }).end()
      return
    }
    state.requests.push(`${request.method} ${request.url}`)
    serve(root, request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const state: GitHttpServer = {
    url: (name) => `http://127.0.0.1:${port}/${name}`,
    requests: [],
    refused: 0,
    hold: undefined,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  return state
}

function serve(root: string, request: IncomingMessage, response: ServerResponse): void {
  const { pathname, search } = new URL(request.url ?? '/', 'http://localhost')
  const child = spawn('git', ['-c', 'safe.directory=*', 'http-backend'], {
    env: {
      PATH: process.env.PATH,
      GIT_PROJECT_ROOT: root,
      GIT_HTTP_EXPORT_ALL: '1',
      GIT_CONFIG_COUNT: '2',
      GIT_CONFIG_KEY_0: 'safe.directory',
      GIT_CONFIG_VALUE_0: '*',
      GIT_CONFIG_KEY_1: 'uploadpack.allowAnySHA1InWant',
      GIT_CONFIG_VALUE_1: 'true',
      PATH_INFO: decodeURIComponent(pathname),
      QUERY_STRING: search.slice(1),
      REQUEST_METHOD: request.method,
      CONTENT_TYPE: request.headers['content-type'] ?? '',
      HTTP_CONTENT_ENCODING: request.headers['content-encoding'] ?? '',
      GIT_PROTOCOL: String(request.headers['git-protocol'] ?? ''),
      REMOTE_ADDR: '127.0.0.1',
    },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  child.stdin.on('error', () => {})
  request.pipe(child.stdin)
  let head = Buffer.alloc(0)
  child.stdout.on('data', (chunk: Buffer) => {
    if (response.headersSent) return void response.write(chunk)
    head = Buffer.concat([head, chunk])
    const end = head.indexOf('\r\n\r\n')
    if (end < 0) return
    const lines = head.subarray(0, end).toString().split('\r\n')
    const headers = lines.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()])
    const status = Number(headers.find(([name]) => name === 'Status')?.[1]?.slice(0, 3) ?? 200)
    for (const [name, value] of headers) if (name !== 'Status') response.setHeader(String(name), String(value))
    response.writeHead(status)
    response.write(head.subarray(end + 4))
  })
  child.once('close', () => response.end())
}
