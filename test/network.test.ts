import { execFile, execFileSync } from 'node:child_process'
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { makeRepository } from './support/agent-fixture.ts'
import { startControlPlane } from './support/control-plane.ts'
import { startForwardProxy } from './support/forward-proxy.ts'
import { noNamespaceBecause, runWithoutNetwork } from './support/network-namespace.ts'
import { makePrivateAuthority } from './support/private-authority.ts'
import { startScriptedModel } from './support/scripted-model.ts'
import { programs, startWorkerProgram } from './support/worker-program.ts'

/** What docs/network.md says: every address that a program dials. */
const run = promisify(execFile)
const ozProgram = join(programs, 'oz.mjs')
const loopbackOnly = fileURLToPath(new URL('support/loopback-only.ts', import.meta.url))

function makeFolder(): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'oz-network-'))
  // Tasks and the database run as users of their own.
  chmodSync(path, 0o755)
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true, maxRetries: 5 }) }
}

const blocked = await noNamespaceBecause()

test.skipIf(blocked !== undefined)(
  'server, database, worker, agent and command line of one machine send nothing that leaves the loopback',
  { timeout: 120_000 },
  async () => {
    using folder = makeFolder()
    const answer = await runWithoutNetwork(process.execPath, [loopbackOnly, folder.path], process.env)
    const { packets, states, watched, ids, branches } = JSON.parse(answer)
    expect(states).toEqual(['SUCCEEDED'])
    expect(watched).toContain('Fixed.')
    expect(ids).toContain('alone')
    expect(branches).toContain('oz/')
    expect(packets).toBe(0)
  },
)

test('everything goes through a proxy that asks for a password, to a server whose certificate a private authority signed', {
  timeout: 120_000,
}, async () => {
  using folder = makeFolder()
  const { caFile, certFile, keyFile } = makePrivateAuthority(folder.path, 'oz.test')
  // A person's files are often closed to the users that tasks run as.
  chmodSync(caFile, 0o600)
  await using proxy = await startForwardProxy()
  await using web = await serveFiles(makeSite(folder.path))
  const repository = `http://git.test:${web.port}/sample.git`
  await using model = await startScriptedModel({
    steps: [
      { toolCalls: [{ name: 'run_command', arguments: { command: `git ls-remote ${repository} main` } }] },
      { text: 'Asked it.' },
    ],
  })
  const modelPort = new URL(model.url).port
  await using cp = await startControlPlane({
    env: {
      OZ_TLS_CERT: certFile,
      OZ_TLS_KEY: keyFile,
      OPENAI_API_KEY: 'sk-test',
      OPENAI_BASE_URL: `http://model.test:${modelPort}/v1`,
      HTTP_PROXY: proxy.urlFor('server'),
    },
  })
  const serverHost = `oz.test:${new URL(cp.url).port}`
  const home = { PATH: process.env.PATH, HOME: folder.path, XDG_STATE_HOME: join(folder.path, 'state') }
  const through = (user: string) => ({ http_proxy: proxy.urlFor(user), HTTPS_PROXY: proxy.urlFor(user) })
  const reach = { OZ_SERVER_URL: `https://${serverHost}`, OZ_API_KEY: cp.adminKey }
  const trusted = { ...home, ...reach, OZ_CA_FILE: caFile }

  await using worker = await startWorkerProgram(folder.path, {
    workerId: 'far',
    env: { ...trusted, ...through('worker') },
    flags: Object.entries(through('agent')).flatMap(([name, value]) => ['-e', `${name}=${value}`]),
  })

  const oz = (args: string[], env: NodeJS.ProcessEnv) => run(process.execPath, [ozProgram, ...args], { env })
  const args = [
    'agent',
    'run-cloud',
    '--prompt',
    'Ask the repository.',
    '--host',
    'far',
    '--repo',
    repository,
    '--watch',
  ]
  const { stdout } = await oz(args, { ...trusted, ...through('cli') }).catch((error: { stdout: string }) => error)
  expect(stdout).toContain('Asked it.')
  expect(stdout).toContain('refs/heads/main')
  expect(stdout).toContain('SUCCEEDED')

  const dialled = (user: string) =>
    [...new Set(proxy.dials.filter(({ by }) => by === user).map(({ to }) => to))].toSorted()
  expect(dialled('cli')).toEqual([serverHost])
  expect(dialled('agent')).toEqual([`git.test:${web.port}`, serverHost])
  expect(dialled('server')).toEqual([`model.test:${modelPort}`])
  // A worker may fetch the run's repository into its mirrors, and nothing else.
  expect(dialled('worker')).toContain(serverHost)
  expect([`git.test:${web.port}`, serverHost]).toEqual(expect.arrayContaining(dialled('worker')))
  expect(worker.log() + stdout).not.toContain('proxy-password')

  const failure = async (env: NodeJS.ProcessEnv) =>
    oz(['run', 'list'], env).then(
      () => 'no failure',
      (error: { stderr: string }) => error.stderr,
    )
  const { OZ_CA_FILE: _, ...untrusting } = trusted
  expect(await failure({ ...untrusting, ...through('cli') })).toContain('authority that this machine does not know')
  const anonymous = { HTTPS_PROXY: proxy.urlFor('cli').replace('cli:proxy-password@', '') }
  expect(await failure({ ...trusted, ...anonymous })).toContain('answered 407')
  expect(await failure({ ...trusted, ...through('cli'), NO_PROXY: '.test' })).toContain('oz.test cannot be resolved')
})

test('a server behind a reverse proxy that speaks TLS is reached by the proxy’s address', async () => {
  using folder = makeFolder()
  const { caFile, certFile, keyFile } = makePrivateAuthority(folder.path, 'oz.test')
  await using cp = await startControlPlane()
  await using front = await startTlsFront(Number(new URL(cp.url).port), { certFile, keyFile })
  const env = {
    PATH: process.env.PATH,
    HOME: folder.path,
    OZ_SERVER_URL: front.url,
    OZ_API_KEY: cp.adminKey,
    OZ_CA_FILE: caFile,
  }
  await using _worker = await startWorkerProgram(folder.path, { workerId: 'behind', env })
  const { stdout } = await run(process.execPath, [ozProgram, 'worker', 'list'], { env })
  expect(stdout).toContain('behind')
})

/** A repository that git can clone from plain files. */
function makeSite(folder: string): string {
  const site = join(folder, 'site')
  const origin = makeRepository(join(folder, 'origin'), { 'README.md': 'sample\n' })
  mkdirSync(site)
  cpSync(join(origin, '.git'), join(site, 'sample.git'), { recursive: true })
  execFileSync('git', ['update-server-info'], { cwd: join(site, 'sample.git') })
  return site
}

async function serveFiles(folder: string) {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost')
    readFile(join(folder, normalize(pathname))).then(
      (bytes) => response.writeHead(200, { 'content-type': 'text/plain' }).end(bytes),
      () => response.writeHead(404).end(),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** What nginx or a load balancer is: it ends TLS and passes bytes on. */
async function startTlsFront(port: number, { certFile, keyFile }: { certFile: string; keyFile: string }) {
  const [{ createServer: createTlsServer }, { connect }] = await Promise.all([import('node:tls'), import('node:net')])
  const open = new Set<{ destroy: () => void }>()
  const server = createTlsServer({ cert: await readFile(certFile), key: await readFile(keyFile) }, (socket) => {
    const onward = connect(port, '127.0.0.1')
    for (const end of [socket, onward]) {
      open.add(end)
      end.on('error', () => end.destroy())
    }
    socket.pipe(onward).pipe(socket)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      for (const end of open) end.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
