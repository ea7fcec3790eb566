import { execFileSync } from 'node:child_process'
import { createReadStream, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createConnection, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream'
import { createContainer, removeContainer, startContainer } from '../../packages/worker/src/engine/containers.ts'
import { importImage } from '../../packages/worker/src/engine/images.ts'
import { programPath, type TestEngine } from './docker-engine.ts'
import { startGitHttpServer } from './git-http-server.ts'
import { imageName, openTestEngine } from './test-images.ts'

/** The engine's end of its default network: see `--bip` of the tests' engine. */
const gateway = '10.212.0.1'

const passOn = `
const net = require('node:net')
net.createServer((client) => {
  const host = net.connect('/way/host.sock')
  client.on('error', () => host.destroy()).pipe(host)
  host.on('error', () => client.destroy()).pipe(client)
}).listen(Number(process.argv[1]), '0.0.0.0')`

/** An address at which containers of an engine reach something of this machine. */
export interface ContainerWay extends AsyncDisposable {
  url: string
}

/**
 * The engine has a network of its own: a container on that passes on what comes to `port` to a socket here, and from there it goes to port `to` of this
 * machine's loopback. `port`: one that no other test takes on that engine.
 */
export async function startContainerWay(
  engine: Pick<TestEngine, 'socket'>,
  { port, to, agentBundle }: { port: number; to: number; agentBundle: string },
): Promise<ContainerWay> {
  const way = mkdtempSync('/tmp/oz-way-')
  const server = createServer((client) => {
    const there = createConnection(to, '127.0.0.1')
    pipeline(client, there, () => {})
    pipeline(there, client, () => {})
  })
  await new Promise<void>((resolve) => server.listen(join(way, 'host.sock'), resolve))
  await using api = openTestEngine(engine)
  const { Id: id } = await createContainer(
    api,
    {
      Image: imageName('musl'),
      Entrypoint: ['/agent/bin/node', '-e', passOn, String(port)],
      HostConfig: { NetworkMode: 'host', Binds: [`${way}:/way`, `${agentBundle}:/agent:ro`] },
    },
    { name: `oz-test-way-${port}` },
  )
  await startContainer(api, id)
  return {
    url: `http://${gateway}:${port}`,
    async [Symbol.asyncDispose]() {
      await using closing = openTestEngine(engine)
      await removeContainer(closing, id)
      server.close()
      rmSync(way, { recursive: true, force: true })
    },
  }
}

/** The repositories of a folder over HTTP, where containers reach them. */
export async function startContainerGit(
  engine: Pick<TestEngine, 'socket'>,
  { root, ...way }: { root: string; port: number; agentBundle: string },
) {
  const host = await startGitHttpServer(root)
  const there = await startContainerWay(engine, { ...way, to: Number(new URL(host.url('')).port) })
  return {
    url: (name: string) => `${there.url}/${name}`,
    async [Symbol.asyncDispose]() {
      await there[Symbol.asyncDispose]()
      await host[Symbol.asyncDispose]()
    },
  }
}

/** An image with a git of its own, which is this machine's with all that it loads, BusyBox, and whatever else is named. */
export async function makeGitImage(
  engine: Pick<TestEngine, 'socket'>,
  image: string,
  more: Record<string, string> = {},
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'oz-git-image-'))
  try {
    const root = join(folder, 'root')
    const core = execFileSync('git', ['--exec-path'], { encoding: 'utf8' }).trim()
    const programs = [programPath('git') ?? 'git', join(core, 'git-remote-http'), ...Object.values(more)]
    const loaded = programs.map((file) => execFileSync('ldd', [file], { encoding: 'utf8' })).join('\n')
    const libraries = new Set(loaded.match(/\/\S+\.so\S*/g))
    for (const made of ['bin', 'etc', 'tmp']) mkdirSync(join(root, made), { recursive: true })
    execFileSync('cp', ['--parents', '-L', ...programs, ...libraries, root])
    execFileSync('cp', [programPath('busybox') ?? 'busybox', join(root, 'bin/busybox')])
    for (const tool of ['sh', 'cat', 'env', 'id', 'ls', 'sed', 'touch']) symlinkSync('busybox', join(root, 'bin', tool))
    for (const [name, program] of Object.entries(more)) symlinkSync(program, join(root, 'bin', name))
    writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/:/bin/sh\n')
    const archive = join(folder, 'root.tar')
    execFileSync('tar', ['-C', root, '--numeric-owner', '-cf', archive, '.'])
    await using api = openTestEngine(engine)
    const [repository = '', tag = ''] = image.split(':')
    await importImage(api, { repository, tag, archive: createReadStream(archive) })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
