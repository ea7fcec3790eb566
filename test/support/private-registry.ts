import { once } from 'node:events'
import { mkdirSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Engine } from '../../packages/worker/src/engine/engine.ts'
import { programPath, type TestEngine } from './docker-engine.ts'
import { until } from './poll.ts'

/** Debian's `docker-registry` on the loopback of an engine, which takes that without encryption. With a login, it asks everybody for it. */
export interface PrivateRegistry extends AsyncDisposable {
  /** "127.0.0.1:5000" */
  readonly host: string
  /** Puts an image of the engine there, under `name` ("HOST/…:TAG"). Leaves the engine without that name. */
  push(engine: Engine, image: string, name: string): Promise<void>
  /** Cuts the end off the largest thing that it stores. */
  damage(): void
}

export const registryUser = { username: 'ada', password: 'registry-password' }

/** bcrypt of the password, with the cheapest factor. */
const passwordHash = '$2b$04$5MXdDYInF47wCzrHtI3tH.0wKslVT.Gem/U7y4Y0tRvcu9LNweKmC'

export function registryProblem(): string | undefined {
  return programPath('docker-registry') === undefined ? 'there is no docker-registry' : undefined
}

export async function startRegistry(
  engine: TestEngine,
  { port, hasLogin }: { port: number; hasLogin: boolean },
): Promise<PrivateRegistry> {
  const folder = join(engine.folder, `registry-${port}`)
  mkdirSync(folder)
  const host = `127.0.0.1:${port}`
  const users = join(folder, 'htpasswd')
  writeFileSync(users, `${registryUser.username}:${passwordHash}\n`)
  const settings = {
    version: 0.1,
    log: { level: 'error', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(folder, 'data') } },
    http: { addr: host },
    ...(hasLogin && { auth: { htpasswd: { realm: 'tests', path: users } } }),
  }
  // JSON is YAML.
  writeFileSync(join(folder, 'config.yml'), JSON.stringify(settings))
  const child = engine.spawnInside(['docker-registry', 'serve', join(folder, 'config.yml')], { stdio: 'ignore' })
  await until(() => listens(engine, port))
  // With its padding: without, the engine takes it for none. These bytes encode alike in both alphabets.
  const login = Buffer.from(JSON.stringify({ ...registryUser, serveraddress: host })).toString('base64')
  return {
    host,
    push: (api, image, name) => push(api, { image, name, login }),
    damage: () => damage(join(folder, 'data')),
    async [Symbol.asyncDispose]() {
      const ended = once(child, 'exit')
      child.kill()
      await ended
      rmSync(folder, { recursive: true })
    },
  }
}

async function push(api: Engine, { image, name, login }: { image: string; name: string; login: string }) {
  const [, repository = '', tag = ''] = /^(.*):([^:/]+)$/.exec(name) ?? []
  await api.json('POST', `/images/${encodeURI(image)}/tag`, { query: { repo: repository, tag } })
  const headers = { 'X-Registry-Auth': login }
  const answer = await api.stream('POST', `/images/${encodeURI(repository)}/push`, { query: { tag }, headers })
  let said = ''
  for await (const chunk of answer as AsyncIterable<Buffer>) said += chunk
  if (!said.includes('digest: sha256:')) throw new Error(said)
  await api.json('DELETE', `/images/${encodeURI(name)}`)
}

/** In its network, not in ours. */
async function listens(engine: TestEngine, port: number): Promise<boolean> {
  const probe = engine.spawnInside([
    'sh',
    '-c',
    `grep -q ':${port.toString(16).toUpperCase().padStart(4, '0')} .* 0A ' /proc/net/tcp`,
  ])
  const [code] = await once(probe, 'exit')
  return code === 0
}

function damage(folder: string): void {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((path) => join(folder, path))
    .filter((path) => path.endsWith('/data') && statSync(path).isFile())
    .toSorted((one, other) => statSync(other).size - statSync(one).size)
  const [largest = ''] = files
  truncateSync(largest, statSync(largest).size - 20)
}
