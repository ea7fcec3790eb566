import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createConnection, createServer } from 'node:net'
import { userInfo } from 'node:os'
import { delimiter, join } from 'node:path'
import { pipeline } from 'node:stream'
import { expect, inject, type TestContext, test } from 'vitest'
import { type ControlPlane, startControlPlane } from '../support/control-plane.ts'
import { programPath, startEngine, type TestEngine } from '../support/docker-engine.ts'
import { endOf, startModelOf, untilNothingIsLeft } from '../support/docker-runs.ts'
import { startDockerWorker } from '../support/docker-worker.ts'
import { until } from '../support/poll.ts'
import { makePrivateAuthority } from '../support/private-authority.ts'
import { imageName, prepareImages } from '../support/test-images.ts'

/** Whole runs on engines that are not this machine's own. How such engines are found and spoken to is in discovery.test.ts. */

const script = [
  { toolCalls: [{ name: 'run_command', arguments: { command: 'cat /sys/class/net/eth0/address; echo far >file' } }] },
  { text: 'Done.' },
]

async function runOn(cp: ControlPlane, engine: Pick<TestEngine, 'socket'>): Promise<void> {
  const environment = { docker_image: imageName('musl') }
  const runId = await cp.createRun({
    prompt: 'a far one',
    config: { environment, worker_host: 'w1', idle_timeout_minutes: 0 },
  })
  expect(await endOf(cp, runId)).toMatchObject({ state: 'SUCCEEDED', message: expect.stringContaining('Done.') })
  await untilNothingIsLeft(engine, [runId])
}

const outwards = `
const net = require('node:net')
const [address, port, socket] = process.argv.slice(1)
net.createServer((client) => {
  const out = net.connect(socket)
  client.on('error', () => out.destroy()).pipe(out)
  out.on('error', () => client.destroy()).pipe(client)
}).listen(Number(port), address, () => console.log('ready'))`

/** The engine's machine has no way to ours: a port of its bridge that leads to the control plane. */
async function letIn(machine: TestEngine, cp: ControlPlane) {
  const [address, port, socket] = ['10.212.0.1', '4747', join(machine.folder, 'out.sock')]
  const target = Number(new URL(cp.url).port)
  const server = createServer((inside) => {
    const control = createConnection(target, '127.0.0.1')
    pipeline(inside, control, () => {})
    pipeline(control, inside, () => {})
  })
  await once(server.listen(socket), 'listening')
  const child = machine.spawnInside([process.execPath, '-e', outwards, address, port, socket], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await once(child.stdout as NodeJS.ReadableStream, 'data')
  return {
    url: `http://${address}:${port}`,
    async [Symbol.asyncDispose]() {
      const ended = once(child, 'exit')
      child.kill()
      await ended
      server.close()
    },
  }
}

test('an engine with TLS, on a machine that shares neither files nor loopback with the worker', async () => {
  const folder = mkdtempSync('/tmp/oz-far-')
  try {
    const { caFile, certFile, keyFile } = makePrivateAuthority(folder, 'engine.example')
    const flags = ['--tlsverify', '--tlscacert', caFile, '--tlscert', certFile, '--tlskey', keyFile]
    await using machine = await startEngine({ flags: [...flags, '-H', 'tcp://127.0.0.1:2376'] })
    await prepareImages(machine, ['musl'])
    await using reach = await machine.reachInside(2376)
    const certificates = join(folder, 'certificates')
    mkdirSync(certificates)
    for (const [from, to] of [
      [caFile, 'ca.pem'],
      [certFile, 'cert.pem'],
      [keyFile, 'key.pem'],
    ] as const)
      copyFileSync(from, join(certificates, to))
    const env = {
      DOCKER_HOST: `tcp://127.0.0.1:${reach.port}`,
      DOCKER_TLS_VERIFY: '1',
      DOCKER_CERT_PATH: certificates,
    }
    const hiding = machine.spawnInside(['mount', '-t', 'tmpfs', 'tmpfs', folder], { stdio: 'ignore' })
    await once(hiding, 'exit')
    await using model = await startModelOf({ 'a far one': script })
    await using cp = await startControlPlane({ env: model.env })
    // Its containers would have to come to our loopback.
    await expect(startDockerWorker(cp, { env, folder })).rejects.toMatchObject({
      code: 'relay_unavailable',
      message: expect.stringMatching(/cannot be mounted into them.*--public-url/),
    })
    await using way = await letIn(machine, cp)
    await using worker = await startDockerWorker(cp, { env, folder, serverRootUrl: way.url })
    await runOn(cp, machine)
    expect(model.askedBy('a far one').at(-1)).toMatch(/([0-9a-f]{2}:){5}/)
    await worker.stop()
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('an engine behind a real ssh server', async (context) => {
  const [sshd, ssh] = [needs(context, 'sshd'), needs(context, 'ssh')]
  needs(context, 'docker')
  const shared = inject('dockerEngine') ?? { socket: '' }
  const folder = mkdtempSync('/tmp/oz-ssh-')
  const at = (name: string) => join(folder, name)
  // Where it locks itself in; systemd would make it.
  const made = mkdirSync('/run/sshd', { recursive: true, mode: 0o755 })
  try {
    for (const key of ['host', 'user'])
      execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', at(key)], { stdio: 'pipe' })
    writeFileSync(at('authorized'), readFileSync(at('user.pub')), { mode: 0o600 })
    const port = await freePort()
    const settings = [
      ...[`ListenAddress 127.0.0.1:${port}`, `HostKey ${at('host')}`, `AuthorizedKeysFile ${at('authorized')}`],
      ...['StrictModes no', 'UsePAM no', 'PermitRootLogin yes', `PidFile ${at('sshd.pid')}`],
      `SetEnv DOCKER_HOST=unix://${shared.socket}`,
    ]
    writeFileSync(at('sshd_config'), settings.join('\n'))
    await using _server = await startSshd(sshd, at('sshd_config'))
    // The user's own settings, which a test cannot put into the home that ssh reads.
    writeFileSync(at('known_hosts'), `[127.0.0.1]:${port} ${readFileSync(at('host.pub'), 'utf8')}`)
    const options = `-F none -i ${at('user')} -o UserKnownHostsFile=${at('known_hosts')}`
    mkdirSync(at('bin'))
    writeFileSync(at('bin/ssh'), `#!/bin/sh\nexec ${ssh} ${options} "$@"\n`, { mode: 0o755 })
    const env = {
      DOCKER_HOST: `ssh://${userInfo().username}@127.0.0.1:${port}`,
      PATH: `${at('bin')}${delimiter}${process.env.PATH}`,
    }
    await using model = await startModelOf({ 'a far one': script })
    await using cp = await startControlPlane({ env: model.env })
    await using _worker = await startDockerWorker(cp, { env })
    await runOn(cp, shared)
  } finally {
    if (made) rmSync(made, { recursive: true })
    rmSync(folder, { recursive: true })
  }
})

async function startSshd(program: string, file: string): Promise<AsyncDisposable> {
  const server = spawn(program, ['-D', '-e', '-f', file], { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  server.stderr.on('data', (chunk: Buffer) => {
    said += chunk
  })
  await until(() => said.includes('Server listening') || server.exitCode !== null)
  if (server.exitCode !== null) throw new Error(said)
  return {
    async [Symbol.asyncDispose]() {
      const ended = once(server, 'exit')
      server.kill()
      await ended
    },
  }
}

function needs(context: TestContext, program: string): string {
  const path = programPath(program)
  if (path !== undefined) return path
  if (process.env.CI) throw new Error(`there is no ${program}`)
  console.error(`NOT TESTED: ${context.task.name}: there is no ${program}`)
  return context.skip(`there is no ${program}`)
}

async function freePort(): Promise<number> {
  const server = createServer()
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  return port
}
