import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { registryAuth } from './registry-login.ts'

const root = mkdtempSync(join(tmpdir(), 'oz-registry-login-'))
afterAll(() => rmSync(root, { recursive: true }))

/** A machine where `docker login` has left this, with helpers that are scripts of these lines. */
function machine(config: object | string, helpers: Record<string, string> = {}): NodeJS.ProcessEnv {
  const folder = mkdtempSync(join(root, 'docker-'))
  writeFileSync(join(folder, 'config.json'), typeof config === 'string' ? config : JSON.stringify(config))
  for (const [name, script] of Object.entries(helpers)) {
    writeFileSync(join(folder, `docker-credential-${name}`), `#!/bin/sh\n${script}\n`)
    chmodSync(join(folder, `docker-credential-${name}`), 0o755)
  }
  return { DOCKER_CONFIG: folder, PATH: `${folder}${delimiter}${process.env.PATH}` }
}

/** As the engine decodes it: Go's URL alphabet wants its padding. */
function decode(header: string | undefined): unknown {
  if (header === undefined) return undefined
  expect(header).toMatch(/^[\w-]+={0,2}$/)
  expect(header.length % 4).toBe(0)
  return JSON.parse(Buffer.from(header, 'base64url').toString('utf8'))
}

const auth = (text: string) => ({ auth: Buffer.from(text).toString('base64') })
const hub = 'https://index.docker.io/v1/'

test.each<[string, Record<string, object>, string, object | undefined]>([
  ['host', { 'ghcr.io': auth('ada:pw:1') }, 'ghcr.io', { username: 'ada', password: 'pw:1', serveraddress: 'ghcr.io' }],
  ['scheme and path', { 'https://ghcr.io/v2/': auth('ada:pw') }, 'ghcr.io', { username: 'ada', password: 'pw' }],
  ['port', { 'localhost:5000': auth('ada:pw') }, 'localhost:5000', { username: 'ada' }],
  ['Docker Hub’s old name', { [hub]: auth('ada:pw') }, 'docker.io', { username: 'ada', serveraddress: hub }],
  ['Docker Hub’s new name', { 'docker.io': auth('ada:pw') }, 'docker.io', { username: 'ada', serveraddress: hub }],
  ['plain fields', { 'ghcr.io': { username: 'ada', password: 'pw' } }, 'ghcr.io', { username: 'ada', password: 'pw' }],
  ['identity token', { 'ghcr.io': { ...auth('ada:'), identitytoken: 'tok' } }, 'ghcr.io', { identitytoken: 'tok' }],
  ['another registry', { 'ghcr.io': auth('ada:pw') }, 'quay.io', undefined],
  ['a host that only begins so', { 'ghcr.io.evil.example': auth('ada:pw') }, 'ghcr.io', undefined],
  ['an empty entry', { 'ghcr.io': {} }, 'ghcr.io', undefined],
  ['padding of old programs', { 'ghcr.io': auth('ada:pw\0\0') }, 'ghcr.io', { password: 'pw' }],
  ['characters that URLs need encoded', { 'ghcr.io': auth('ada:ÿþ?>~') }, 'ghcr.io', { password: 'ÿþ?>~' }],
])('a stored login is found by %s', async (_, auths, host, login) => {
  const found = decode(await registryAuth(host, machine({ auths })))
  if (login === undefined) expect(found).toBeUndefined()
  else expect(found).toMatchObject(login)
})

const answers = (username: string, secret: string) =>
  `cat >/dev/null; echo '{"Username":"${username}","Secret":"${secret}"}'`

test('the helper of the registry goes before the one for all, and that before what is stored', async () => {
  const helpers = { special: answers('special', 's1'), general: answers('general', 's2') }
  const config = {
    credHelpers: { 'ghcr.io': 'special' },
    credsStore: 'general',
    auths: { 'ghcr.io': auth('stored:pw') },
  }
  const env = machine(config, helpers)
  expect(decode(await registryAuth('ghcr.io', env))).toMatchObject({ username: 'special', password: 's1' })
  expect(decode(await registryAuth('quay.io', env))).toMatchObject({ username: 'general', password: 's2' })
  const { credsStore: _, ...rest } = config
  expect(decode(await registryAuth('ghcr.io', machine({ ...rest, credHelpers: {} })))).toMatchObject({
    username: 'stored',
  })
})

test('a helper is asked on its stdin, for Docker Hub by its old name, and without the worker’s key', async () => {
  const script = `read host; echo "{\\"Username\\":\\"$host\\",\\"Secret\\":\\"key $OZ_API_KEY\\"}"`
  const env = { ...machine({ credsStore: 'echo' }, { echo: script }), OZ_API_KEY: 'wk-1' }
  expect(decode(await registryAuth('ghcr.io', env))).toMatchObject({ username: 'ghcr.io', password: 'key ' })
  expect(decode(await registryAuth('docker.io', env))).toMatchObject({ username: hub, serveraddress: hub })
})

test('a helper’s token is an identity token', async () => {
  const env = machine({ credsStore: 'tok' }, { tok: answers('<token>', 'abc') })
  expect(decode(await registryAuth('ghcr.io', env))).toEqual({ identitytoken: 'abc', serveraddress: 'ghcr.io' })
})

test('a helper that knows nothing leaves it to what is stored', async () => {
  const script = 'echo "credentials not found in native keychain"; exit 1'
  const config = { credsStore: 'none', auths: { 'ghcr.io': auth('ada:pw') } }
  const env = machine(config, { none: script })
  expect(decode(await registryAuth('ghcr.io', env))).toMatchObject({ username: 'ada' })
  expect(await registryAuth('quay.io', env)).toBeUndefined()
})

test.each([
  ['that fails', 'echo "secret-7"; echo "secret-7" >&2; exit 3', 'exit code 3'],
  ['that answers something else', 'echo "secret-7"', 'no Username and Secret'],
  ['that answers too much', 'yes secret-7', 'too long'],
])('a helper %s is named, without what it wrote', async (_, script, problem) => {
  const env = machine({ credsStore: 'bad' }, { bad: script })
  const error = await registryAuth('ghcr.io', env).catch((thrown: Error) => thrown)
  expect(error).toMatchObject({ code: 'credential_helper_failed' })
  expect(String(error)).toContain('docker-credential-bad')
  expect(String(error)).toContain(problem)
  expect(JSON.stringify([error, String(error)])).not.toContain('secret-7')
})

test('a helper that is not installed, or whose name leads elsewhere, is named', async () => {
  await expect(registryAuth('ghcr.io', machine({ credsStore: 'gone' }))).rejects.toThrow('no such program')
  await expect(registryAuth('ghcr.io', machine({ credsStore: '../x' }))).rejects.toThrow('not the name of a helper')
})

test('whoever wants no login any more does not wait for the helper', async () => {
  const env = machine({ credsStore: 'slow' }, { slow: `touch "$DOCKER_CONFIG/asked"; exec sleep 60` })
  const stop = new AbortController()
  const asking = registryAuth('ghcr.io', env, stop.signal)
  await expect.poll(() => existsSync(join(env.DOCKER_CONFIG ?? '', 'asked'))).toBe(true)
  stop.abort(new Error('enough'))
  await expect(asking).rejects.toThrow('enough')
})

test('a configuration that cannot be read is no missing login', async () => {
  const error = await registryAuth('ghcr.io', machine('{"auths":{"ghcr.io":{"auth":"c2Vj')).catch(String)
  expect(error).toContain('config.json cannot be used: it is not JSON')
  expect(error).not.toContain('c2Vj')
  expect(await registryAuth('ghcr.io', { DOCKER_CONFIG: join(root, 'nowhere') })).toBeUndefined()
})
