import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { findEngine } from './engine-address.ts'

const root = mkdtempSync(join(tmpdir(), 'oz-engine-address-'))
afterAll(() => rmSync(root, { recursive: true }))

/** A home with these files below it; sockets are only looked for, so that a file will do. */
function home(files: Record<string, string> = {}): { HOME: string } {
  const folder = mkdtempSync(join(root, 'home-'))
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(join(folder, path, '..'), { recursive: true })
    writeFileSync(join(folder, path), content)
  }
  return { HOME: folder }
}

const id = createHash('sha256').update('far').digest('hex')
const metaFile = `.docker/contexts/meta/${id}/meta.json`
const meta = (Host: string, more = {}) => JSON.stringify({ Name: 'far', Endpoints: { docker: { Host, ...more } } })
const usesFar = { '.docker/config.json': '{"currentContext":"far"}', [metaFile]: meta('ssh://ada@far.example') }
const socketThere = { 'docker.sock': '' }
const allThere = { ...usesFar, ...socketThere, '.docker/run/docker.sock': '', 'run/docker.sock': '' }
const pems = { 'ca.pem': 'ca', 'cert.pem': 'cert', 'key.pem': 'key' }

function below(folder: string, files: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(files).map(([name, content]) => [`${folder}/${name}`, content]))
}

/** `HOME/docker.sock` plays root's socket. */
function find(env: NodeJS.ProcessEnv & { HOME: string }) {
  const found = findEngine(env, { socket: join(env.HOME, 'docker.sock') })
  return { ...found, display: found.display.replace(env.HOME, '~'), source: found.source.replaceAll(env.HOME, '~') }
}

test.each<[string, NodeJS.ProcessEnv & { HOME: string }, string, string]>([
  ['DOCKER_HOST', { ...home(allThere), DOCKER_HOST: 'unix:///x.sock' }, 'unix:///x.sock', 'DOCKER_HOST'],
  [
    'DOCKER_HOST before a context',
    { ...home(allThere), DOCKER_HOST: 'tcp://h:1', DOCKER_CONTEXT: 'far' },
    'tcp://h:1',
    'DOCKER_HOST',
  ],
  [
    'a context that was asked for, before the socket',
    { ...home(allThere), DOCKER_CONTEXT: 'far' },
    'ssh://ada@far.example',
    'context far of DOCKER_CONTEXT',
  ],
  ['the default socket, before the current context', home(allThere), 'unix://~/docker.sock', 'the default socket'],
  [
    'the default context',
    { ...home(allThere), DOCKER_CONTEXT: 'default' },
    'unix://~/docker.sock',
    'the default socket',
  ],
  [
    'a rootless socket of Docker Desktop',
    home({ '.docker/run/docker.sock': '', ...usesFar }),
    'unix://~/.docker/run/docker.sock',
    'the rootless socket',
  ],
  [
    'the current context, when there is no socket',
    home(usesFar),
    'ssh://ada@far.example',
    'context far of ~/.docker/config.json',
  ],
  [
    'nothing at all: the default socket, and what was looked for',
    home(),
    'unix://~/docker.sock',
    'the default socket; there is no ~/.docker/run/docker.sock either, and no DOCKER_HOST or DOCKER_CONTEXT',
  ],
  [
    'a current context that is the default',
    home({ '.docker/config.json': '{"currentContext":"default"}' }),
    'unix://~/docker.sock',
    'the default socket; there is no ~/.docker/run/docker.sock either, and no DOCKER_HOST or DOCKER_CONTEXT',
  ],
])('the engine is found by %s', (_, env, display, source) => {
  expect(find(env)).toMatchObject({ display, source })
})

test('the rootless socket of the session goes before that of the home', () => {
  const env = home({ 'run/docker.sock': '', '.docker/run/docker.sock': '' })
  const found = find({ ...env, XDG_RUNTIME_DIR: join(env.HOME, 'run') })
  expect(found).toMatchObject({ kind: 'unix', display: 'unix://~/run/docker.sock', source: 'the rootless socket' })
})

test('DOCKER_CONFIG moves contexts and the current one', () => {
  const { HOME } = home(usesFar)
  const found = find({ ...home(), DOCKER_CONFIG: join(HOME, '.docker') })
  expect(found.display).toBe('ssh://ada@far.example')
})

test.each<[string, object]>([
  ['unix:///run/x.sock', { kind: 'unix', socketPath: '/run/x.sock' }],
  ['tcp://far.example', { kind: 'tcp', host: 'far.example', port: 2375, pathPrefix: '' }],
  [
    'tcp://far.example:99/below/',
    { kind: 'tcp', port: 99, pathPrefix: '/below', display: 'tcp://far.example:99/below' },
  ],
  ['tcp://[::1]:2375', { kind: 'tcp', host: '::1', port: 2375 }],
  ['http://far.example', { kind: 'tcp', port: 80 }],
  ['https://far.example', { kind: 'tls', port: 443, tls: {} }],
  ['ssh://far.example', { kind: 'ssh', host: 'far.example', user: undefined, port: undefined, socketPath: undefined }],
  ['ssh://ada@far.example:22/run/x.sock', { kind: 'ssh', user: 'ada', port: 22, socketPath: '/run/x.sock' }],
])('the address %s is understood', (DOCKER_HOST, target) => {
  expect(find({ ...home(), DOCKER_HOST })).toMatchObject(target)
})

test.each([
  ['npipe:////./pipe/docker_engine', 'Windows'],
  ['far.example:2375', 'must begin with'],
  ['fd://', 'must begin with'],
  ['unix://run/x.sock', 'absolute'],
  ['tcp://', 'no host'],
  ['tcp://:2375', 'no host'],
  ['ssh://ada:secret@far.example', 'password'],
  ['ssh://far.example/run/$(id)', 'characters'],
])('the address %s is refused: %s', (DOCKER_HOST, problem) => {
  expect(() => find({ ...home(), DOCKER_HOST })).toThrow(problem)
  expect(() => find({ ...home(), DOCKER_HOST })).toThrow(/^DOCKER_HOST is not valid/)
  expect(() => find({ ...home(), DOCKER_HOST })).not.toThrow('secret')
})

test.each<[string, NodeJS.ProcessEnv, object]>([
  ['nothing: no encryption', {}, { kind: 'tcp', port: 2375 }],
  ['DOCKER_TLS_VERIFY', { DOCKER_TLS_VERIFY: '1' }, { kind: 'tls', port: 2376, tls: { rejectUnauthorized: true } }],
  ['DOCKER_TLS', { DOCKER_TLS: '1' }, { kind: 'tls', tls: { rejectUnauthorized: false } }],
])('variables of encryption: %s', (_, variables, target) => {
  const env = { ...home(below('.docker', pems)), ...variables, DOCKER_HOST: 'tcp://far.example' }
  expect(find(env)).toMatchObject(target)
})

test('DOCKER_CERT_PATH says where the certificates are, and half a pair is refused', () => {
  const env = { ...home(below('certs', pems)), DOCKER_HOST: 'tcp://far.example', DOCKER_TLS_VERIFY: '1' }
  const found = find({ ...env, DOCKER_CERT_PATH: join(env.HOME, 'certs') })
  expect(found).toMatchObject({ tls: { ca: Buffer.from('ca'), cert: Buffer.from('cert'), key: Buffer.from('key') } })
  const half = home({ 'cert.pem': 'cert' }).HOME
  expect(() => find({ ...env, DOCKER_CERT_PATH: half })).toThrow('only one of cert.pem and key.pem')
  expect(() => find({ ...env, DOCKER_CERT_PATH: join(half, 'none') })).toThrow('has neither ca.pem nor cert.pem')
})

test('a context brings certificates of its own, and may ask not to verify', () => {
  const tlsFiles = below(`.docker/contexts/tls/${id}/docker`, pems)
  const verified = { ...home({ [metaFile]: meta('tcp://far.example:1'), ...tlsFiles }), DOCKER_CONTEXT: 'far' }
  expect(find(verified)).toMatchObject({ kind: 'tls', tls: { ca: Buffer.from('ca'), rejectUnauthorized: true } })
  const skipping = home({ [metaFile]: meta('tcp://far.example:1', { SkipTLSVerify: true }) })
  expect(find({ ...skipping, DOCKER_CONTEXT: 'far' })).toMatchObject({
    kind: 'tls',
    tls: { rejectUnauthorized: false },
  })
})

test.each<[string, NodeJS.ProcessEnv & { HOME: string }, string]>([
  ['that does not exist', { ...home(), DOCKER_CONTEXT: 'gone' }, 'no such context'],
  ['without an engine', { ...home({ [metaFile]: '{"Endpoints":{}}' }), DOCKER_CONTEXT: 'far' }, 'names no engine'],
  ['that is not JSON', { ...home({ [metaFile]: '{' }), DOCKER_CONTEXT: 'far' }, 'names no engine'],
  ['for Windows', { ...home({ [metaFile]: meta('npipe:////./pipe/x') }), DOCKER_CONTEXT: 'far' }, 'Windows'],
])('a context %s is refused by its name', (_, env, problem) => {
  expect(() => find(env)).toThrow(problem)
  expect(() => find(env)).toThrow(/^The Docker context (far|gone) cannot be used/)
})

test('a configuration that is not JSON is named, and not quoted', () => {
  const env = home({ '.docker/config.json': '{"auths":{"x":{"auth":"c2VjcmV0"' })
  expect(() => find(env)).toThrow(/config\.json cannot be used: it is not JSON/)
  expect(() => find(env)).not.toThrow('c2VjcmV0')
})
