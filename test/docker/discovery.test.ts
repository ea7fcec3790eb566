import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { delimiter, join } from 'node:path'
import { AppError } from '@openoz/protocol'
import { pino } from 'pino'
import { afterAll, expect, inject, type TestContext, test } from 'vitest'
import { openEngine } from '../../packages/worker/src/engine/engine.ts'
import { findEngine } from '../../packages/worker/src/engine/engine-address.ts'
import { checkEngine } from '../../packages/worker/src/engine/engine-check.ts'
import { followEvents } from '../../packages/worker/src/engine/engine-events.ts'
import { importImage, removeImage } from '../../packages/worker/src/engine/images.ts'
import { tarOf } from '../../packages/worker/src/engine/tar-text.ts'
import { programPath, startEngine } from '../support/docker-engine.ts'
import { until } from '../support/poll.ts'
import { makePrivateAuthority } from '../support/private-authority.ts'

/** Engines are found and reached as `docker` does it, with what `docker` itself has written. */

const root = mkdtempSync(join(tmpdir(), 'oz-discovery-'))
chmodSync(root, 0o755)
afterAll(() => rmSync(root, { recursive: true }))

const shared = () => inject('dockerEngine')?.socket ?? ''

/** A user without anything, and no engine of this machine. */
function home(): { HOME: string; DOCKER_CONFIG: string; PATH: string } {
  const HOME = mkdtempSync(join(root, 'home-'))
  return { HOME, DOCKER_CONFIG: join(HOME, '.docker'), PATH: process.env.PATH ?? '' }
}

function open(env: NodeJS.ProcessEnv & { HOME: string }) {
  const address = findEngine(env, { socket: join(env.HOME, 'none.sock') })
  return openEngine(address, { env, log: pino({ level: 'silent' }) })
}

async function check(env: NodeJS.ProcessEnv & { HOME: string }) {
  await using engine = open(env)
  return await checkEngine(engine)
}

async function failure(env: NodeJS.ProcessEnv & { HOME: string }): Promise<{ code: string; message: string }> {
  const error = await check(env).catch((thrown: unknown) => thrown)
  if (!(error instanceof AppError)) throw error
  return { code: error.code, message: error.message }
}

function needs(context: TestContext, program: string): string {
  const path = programPath(program)
  if (path !== undefined) return path
  if (process.env.CI) throw new Error(`there is no ${program}`)
  console.error(`NOT TESTED: ${context.task.name}: there is no ${program}`)
  return context.skip(`there is no ${program}`)
}

test('an engine is found by DOCKER_HOST, and by a context that docker has made', async (context) => {
  const docker = needs(context, 'docker')
  const env = home()
  expect(await check({ ...env, DOCKER_HOST: `unix://${shared()}` })).toMatchObject({ isLocal: true })
  execFileSync(docker, ['context', 'create', 'far', '--docker', `host=unix://${shared()}`], { env, stdio: 'pipe' })
  expect(await check({ ...env, DOCKER_CONTEXT: 'far' })).toMatchObject({ isLocal: true })
  // It is not current yet.
  expect((await failure(env)).code).toBe('engine_unreachable')
  execFileSync(docker, ['context', 'use', 'far'], { env, stdio: 'pipe' })
  expect(await check(env)).toMatchObject({ isLocal: true })
})

test('an engine with TLS is reached with the certificates of a folder, or of a context', async (context) => {
  const docker = needs(context, 'docker')
  const pki = join(root, 'pki')
  mkdirSync(pki)
  const { caFile, certFile, keyFile } = makePrivateAuthority(pki, 'engine.example')
  const flags = ['--tlsverify', '--tlscacert', caFile, '--tlscert', certFile, '--tlskey', keyFile]
  await using machine = await startEngine({ flags: [...flags, '-H', 'tcp://127.0.0.1:2376'] })
  await using reach = await machine.reachInside(2376)
  const certificates = join(root, 'certificates')
  mkdirSync(certificates)
  for (const [from, to] of Object.entries({ [caFile]: 'ca.pem', [certFile]: 'cert.pem', [keyFile]: 'key.pem' }))
    writeFileSync(join(certificates, to), readFileSync(from))
  const env = { ...home(), DOCKER_HOST: `tcp://127.0.0.1:${reach.port}` }

  const verified = { ...env, DOCKER_TLS_VERIFY: '1', DOCKER_CERT_PATH: certificates }
  expect(await check(verified)).toMatchObject({ isLocal: false })
  {
    // Over connections that are kept, and one of its own.
    await using engine = open(verified)
    for (let count = 0; count < 3; count++) await checkEngine(engine)
    const archive = await tarOf([{ name: 'x', body: Buffer.alloc(500_000) }])
    await importImage(engine, { repository: 'oz-test/tls', tag: '1', archive })
    await removeImage(engine, 'oz-test/tls:1')
  }
  const source = `host=${env.DOCKER_HOST},ca=${caFile},cert=${certFile},key=${keyFile}`
  execFileSync(docker, ['context', 'create', 'tls', '--docker', source], { env, stdio: 'pipe' })
  expect(await check({ ...env, DOCKER_HOST: undefined, DOCKER_CONTEXT: 'tls' })).toMatchObject({ isLocal: false })

  expect(await failure(env)).toMatchObject({
    code: 'engine_unreachable',
    message: expect.stringContaining('encrypted connections only'),
  })
  rmSync(join(certificates, 'cert.pem'))
  rmSync(join(certificates, 'key.pem'))
  expect(await failure(verified)).toMatchObject({
    code: 'engine_unreachable',
    message: expect.stringContaining('certificate of this worker'),
  })
  rmSync(join(certificates, 'ca.pem'))
  writeFileSync(join(certificates, 'ca.pem'), otherAuthority())
  expect(await failure(verified)).toMatchObject({
    code: 'engine_unreachable',
    message: expect.stringContaining('certificate'),
  })
})

function otherAuthority(): Buffer {
  const folder = mkdtempSync(join(root, 'other-'))
  return readFileSync(makePrivateAuthority(folder, 'other.example').caFile)
}

/** What a user's `ssh` would do at the other end: a program of the same name that runs the command here. */
function withSsh(env: ReturnType<typeof home>, script: string): NodeJS.ProcessEnv & { HOME: string } {
  const bin = join(env.HOME, 'bin')
  mkdirSync(bin)
  writeFileSync(join(bin, 'ssh'), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  return { ...env, PATH: `${bin}${delimiter}${env.PATH}`, DOCKER_HOST: 'ssh://ada@far.example:2222' }
}

test('an engine is reached through ssh, with calls, streams and archives', async (context) => {
  needs(context, 'docker')
  const said = join(root, 'ssh-arguments')
  const script = `echo "$@" >>${said}\nwhile [ "$1" != -- ]; do shift; done\nshift 2\nexec env DOCKER_HOST=unix://${shared()} "$@"`
  const env = withSsh(home(), script)
  {
    await using engine = open(env)
    expect(await checkEngine(engine)).toMatchObject({ isLocal: false })
    const stop = new AbortController()
    const told: string[] = []
    const observer = {
      event: ({ Action }: { Action: string }) => told.push(Action),
      broken: () => told.push('broken'),
      restored: () => told.push('restored'),
    }
    const following = followEvents(engine, { labels: [], types: ['image'] }, observer, stop.signal)
    await until(() => told.includes('restored'))
    const archive = await tarOf([{ name: 'x', body: Buffer.alloc(500_000, 'x') }])
    await importImage(engine, { repository: 'oz-test/ssh', tag: '1', archive })
    await removeImage(engine, 'oz-test/ssh:1')
    await until(() => told.includes('import') && told.includes('delete'))
    expect(told).not.toContain('broken')
    stop.abort()
    await following
  }
  const [first = ''] = readFileSync(said, 'utf8').split('\n')
  expect(first).toMatch(/^-o BatchMode=yes .*-l ada -p 2222 -- far\.example docker system dial-stdio$/)
})

test('why ssh does not get there is said', async () => {
  const refused = withSsh(
    home(),
    'echo "Warning: something" >&2; echo "ada@far.example: Permission denied (publickey)." >&2; exit 255',
  )
  expect(await failure(refused)).toMatchObject({
    code: 'engine_unreachable',
    message: expect.stringMatching(
      /ssh:\/\/ada@far\.example:2222 \(DOCKER_HOST\).*ssh: .*Permission denied \(publickey\)/,
    ),
  })
  expect(await failure({ ...home(), PATH: root, DOCKER_HOST: 'ssh://far.example' })).toMatchObject({
    code: 'engine_unreachable',
    message: expect.stringContaining('ssh cannot be started'),
  })
})

test('an engine is reached through a real ssh server', async (context) => {
  const sshd = needs(context, 'sshd')
  needs(context, 'docker')
  const folder = mkdtempSync(join(root, 'sshd-'))
  const at = (name: string) => join(folder, name)
  for (const key of ['host', 'user'])
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', at(key)], { stdio: 'pipe' })
  writeFileSync(at('authorized'), readFileSync(at('user.pub')), { mode: 0o600 })
  const port = await freePort()
  const { username } = userInfo()
  const settings = [
    `ListenAddress 127.0.0.1:${port}`,
    `HostKey ${at('host')}`,
    `AuthorizedKeysFile ${at('authorized')}`,
    'StrictModes no',
    'UsePAM no',
    'PermitRootLogin yes',
    `PidFile ${at('sshd.pid')}`,
    `SetEnv DOCKER_HOST=unix://${shared()}`,
  ]
  writeFileSync(at('sshd_config'), settings.join('\n'))
  // Where it locks itself in; systemd would make it.
  const made = mkdirSync('/run/sshd', { recursive: true, mode: 0o755 })
  const server = spawn(sshd, ['-D', '-e', '-f', at('sshd_config')], { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  server.stderr.on('data', (chunk: Buffer) => {
    said += chunk
  })
  try {
    await until(() => said.includes('Server listening'), Boolean, { timeoutMs: 10_000 })
    // The user's own settings, which a test cannot put into the home that ssh reads.
    writeFileSync(at('known_hosts'), `[127.0.0.1]:${port} ${readFileSync(at('host.pub'), 'utf8')}`)
    const options = `-F none -i ${at('user')} -o UserKnownHostsFile=${at('known_hosts')}`
    const env = withSsh(home(), `exec ${programPath('ssh')} ${options} "$@"`)
    const DOCKER_HOST = `ssh://${username}@127.0.0.1:${port}`
    expect(await check({ ...env, DOCKER_HOST })).toMatchObject({ isLocal: false })
    const stranger = withSsh(
      home(),
      `exec ${programPath('ssh')} -F none -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes "$@"`,
    )
    expect((await failure({ ...stranger, DOCKER_HOST })).message).toContain('Host key verification failed')
  } finally {
    const ended = once(server, 'exit')
    server.kill()
    await ended
    if (made) rmSync(made, { recursive: true })
  }
})

async function freePort(): Promise<number> {
  const server = createServer()
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const address = server.address()
  server.close()
  return typeof address === 'object' && address !== null ? address.port : 0
}

test('an engine that is not there, or does not listen, is named with who named it', async () => {
  const env = home()
  const away = await failure(env)
  expect(away.code).toBe('engine_unreachable')
  expect(away.message).toMatch(
    /none\.sock \(the default socket; there is no .*\) cannot be reached: there is no such socket/,
  )
  expect(away.message).toContain('`docker info`')
  await using machine = await startEngine()
  await machine.kill()
  expect(await failure({ ...env, ...machine.env })).toMatchObject({
    code: 'engine_unreachable',
    message: expect.stringMatching(/unix:.*\(DOCKER_HOST\) cannot be reached: nothing listens there/),
  })
})

test('a user who may not use the engine is told which group to join', async () => {
  const env = { ...home(), DOCKER_HOST: `unix://${shared()}` }
  chmodSync(join(shared(), '..'), 0o711)
  // Sockets are asked for with the rights of the moment.
  process.seteuid?.('nobody')
  const told = await failure(env).finally(() => process.seteuid?.(0))
  expect(told.code).toBe('engine_permission')
  expect(told.message).toContain('usermod -aG docker')
})
