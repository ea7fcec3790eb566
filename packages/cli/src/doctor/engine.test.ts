import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { checkContainers } from './engine.ts'

const folder = mkdtempSync(join(tmpdir(), 'oz-doctor-'))
afterAll(() => rmSync(folder, { recursive: true }))

const nowhere = join(folder, 'docker.sock')
const home = { HOME: folder, OZ_AGENT_BUNDLE: '' }

const examine = async (env: NodeJS.ProcessEnv, socket = nowhere) => {
  const [engine, bundle] = await checkContainers({ ...home, ...env }, socket)
  if (!engine || !bundle) throw new Error('there are two checks')
  return { engine, bundle }
}

/** What an engine says of itself, at a socket. */
async function listening(name: string, { arch = 'amd64' } = {}): Promise<{ socket: string } & AsyncDisposable> {
  const socket = join(folder, `${name}.sock`)
  const server = createServer(({ url = '' }, response) => {
    const version = { Version: '20.10.24', ApiVersion: '1.41', MinAPIVersion: '1.12', Os: 'linux', Arch: arch }
    const info = { OSType: 'linux', SecurityOptions: ['name=seccomp,profile=default', 'name=rootless'] }
    response.end(JSON.stringify(url.endsWith('/version') ? version : info))
  })
  await once(server.listen(socket), 'listening')
  return {
    socket,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** With what the doctor and the worker read of it. */
function bundleFor(platform: string): string {
  const bundle = mkdtempSync(join(folder, 'bundle-'))
  mkdirSync(join(bundle, 'bin'))
  const manifest = {
    version: 1,
    hash: 'a'.repeat(64),
    oz: '0.1.0',
    node: '24.21.0',
    git: '2.39.5',
    ripgrep: '15.0.0',
    platform,
    is_patched: true,
    libc: 'glibc 2.36',
    files: [],
    licences: [],
  }
  writeFileSync(join(bundle, 'manifest.json'), JSON.stringify(manifest))
  return bundle
}

test('a machine without an engine, and told of none, has nothing to put right', async () => {
  const { engine } = await examine({})
  expect(engine).toEqual({ check: 'container engine', level: 'ok', text: expect.stringMatching(/none.*direct/) })
})

test('an engine that somebody named and that is not there is told with who named it', async () => {
  const { engine } = await examine({ DOCKER_HOST: `unix://${nowhere}` })
  expect(engine).toMatchObject({ level: 'warn', remedy: expect.stringContaining('docker info') })
  expect(engine.text).toMatch(/docker\.sock \(DOCKER_HOST\).*no such socket.*\[engine_unreachable\]$/)
  expect(engine.text).not.toContain('docker info')
  const context = await examine({ DOCKER_CONTEXT: 'build' })
  expect(context.engine).toMatchObject({ level: 'warn', text: expect.stringContaining('[docker_context_invalid]') })
})

test('an engine is shown with its version, its CPU, and where it was found', async () => {
  await using stand = await listening('own')
  const { engine } = await examine({}, stand.socket)
  const text = `Docker 20.10.24, linux/amd64, rootless, at unix://${stand.socket} (the default socket)`
  expect(engine).toEqual({ check: 'container engine', level: 'ok', text })
})

test('an engine on a CPU that no agent is for is named with it', async () => {
  await using stand = await listening('s390x', { arch: 's390x' })
  const { engine } = await examine({ DOCKER_HOST: `unix://${stand.socket}` })
  expect(engine).toMatchObject({ level: 'warn', text: expect.stringContaining('linux/s390x') })
})

test('the bundle that a worker would take is shown, for the CPU of the engine', async () => {
  await using stand = await listening('arm', { arch: 'arm64' })
  const fitting = bundleFor('linux/arm64')
  const env = { DOCKER_HOST: `unix://${stand.socket}` }
  const { bundle } = await examine({ ...env, OZ_AGENT_BUNDLE: fitting })
  const text = `${fitting}: for linux/arm64, node 24.21.0, git 2.39.5, aaaaaaaaaaaa`
  expect(bundle).toEqual({ check: 'agent bundle', level: 'ok', text })
  const other = await examine({ ...env, OZ_AGENT_BUNDLE: bundleFor('linux/amd64') })
  expect(other.bundle).toMatchObject({ level: 'warn', remedy: expect.stringContaining('agent-linux-arm64') })
  expect(other.bundle.text).toMatch(/linux\/amd64.*linux\/arm64.*\[agent_bundle_wrong_platform\]$/)
})

test('without a bundle an engine is of no use, and without an engine a bundle is not missed', async () => {
  await using stand = await listening('bare')
  const missing = { OZ_AGENT_BUNDLE: join(folder, 'no-bundle') }
  const { bundle } = await examine({ ...missing, DOCKER_HOST: `unix://${stand.socket}` })
  expect(bundle).toMatchObject({ level: 'warn', remedy: expect.stringContaining('npm run build') })
  expect((await examine(missing)).bundle).toMatchObject({
    level: 'ok',
    text: expect.stringContaining('only containers'),
  })
})
