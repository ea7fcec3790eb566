import { execFile } from 'node:child_process'
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { findPostgresPackage } from '../../packages/server/src/postgres/binaries.ts'
import { programPath } from './docker-engine.ts'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../../', import.meta.url))

/** The clone after `npm run build`, as far as images are made of it, and the programs of Docker in it. */
export interface ImageContext extends Disposable {
  readonly folder: string
  /** Of compose.yaml. */
  readonly variables: Record<string, string>
  docker(...args: string[]): Promise<string>
  /** Of `images/compose.yaml`, with whatever is given beside it, in a project of its own. */
  compose(...args: string[]): Promise<string>
}

/** Why they cannot be tried here; undefined when they can. */
export function imagesProblem(): string | undefined {
  const missing = ['docker', 'docker-compose'].filter((name) => programPath(name) === undefined)
  return missing.length === 0 ? undefined : `there is no ${missing.join(', ')}`
}

/** `agentBundle`: in the `dist/` that it was built in. */
export async function makeImageContext(options: {
  agentBundle: string
  dockerHost: string
  variables: Record<string, string>
  /** Laid over compose.yaml. */
  override: object
}): Promise<ImageContext> {
  const dist = dirname(options.agentBundle)
  if (!existsSync(join(dist, 'oz.mjs'))) throw new Error(`${dist} is not what npm run build makes`)
  const cache = join(root, 'node_modules', '.cache')
  mkdirSync(cache, { recursive: true })
  const folder = mkdtempSync(join(cache, 'openoz-images-'))
  cpSync(join(root, 'images'), join(folder, 'images'), { recursive: true })
  cpSync(join(root, '.dockerignore'), join(folder, '.dockerignore'))
  await run('cp', ['-a', dist, join(folder, 'dist')])
  const override = join(folder, 'override.json')
  writeFileSync(override, JSON.stringify(options.override))
  // Not somebody's own settings and logins; and the builder that every engine has.
  const env = {
    PATH: process.env.PATH,
    HOME: folder,
    DOCKER_HOST: options.dockerHost,
    DOCKER_BUILDKIT: '0',
    COMPOSE_DOCKER_CLI_BUILD: '0',
  }
  const { variables } = options
  const call = async (name: string, args: string[]) => {
    const { stdout } = await run(programPath(name) ?? name, args, {
      cwd: folder,
      env: { ...env, ...variables },
      maxBuffer: 1e8,
    }).catch((error: { stdout?: string; stderr?: string }) => {
      throw new Error(`${name} ${args.join(' ')}\n${error.stdout}\n${error.stderr}`)
    })
    return stdout
  }
  const files = ['-p', 'openoz-test', '-f', 'images/compose.yaml', '-f', override]
  return {
    folder,
    variables,
    docker: (...args) => call('docker', args),
    compose: (...args) => call('docker-compose', [...files, ...args]),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }),
  }
}

const startPostgres = `#!/bin/sh
set -e
export LD_LIBRARY_PATH=/usr/local/pgsql/lib
bin=/usr/local/pgsql/bin
if [ ! -e "$PGDATA/PG_VERSION" ]; then
  printf '%s' "$POSTGRES_PASSWORD" >/tmp/password
  $bin/initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile=/tmp/password -A scram-sha-256 -E UTF8 --locale=C >/dev/null
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  echo "create database $POSTGRES_DB" | $bin/postgres --single -D "$PGDATA" postgres >/dev/null
fi
exec $bin/postgres -D "$PGDATA" -k /tmp -c "listen_addresses=*"
`
const pgIsReady = `#!/bin/bash
exec 3<>/dev/tcp/127.0.0.1/5432
`

/** What stands for the image of PostgreSQL in compose.yaml where no registry is: the same program, started by the same variables. */
export async function buildPostgresImage(
  { folder, docker }: ImageContext,
  { base, tag }: Record<'base' | 'tag', string>,
) {
  const context = join(folder, 'postgres')
  mkdirSync(context)
  const native = join(findPostgresPackage(`${process.platform}-${process.arch}`), 'native')
  cpSync(native, join(context, 'pgsql'), { recursive: true, verbatimSymlinks: true })
  for (const [name, text] of Object.entries({ start: startPostgres, pg_isready: pgIsReady })) {
    writeFileSync(join(context, name), text)
    chmodSync(join(context, name), 0o755)
  }
  const recipe = [
    `FROM ${base}`,
    'COPY pgsql /usr/local/pgsql',
    'COPY start pg_isready /usr/local/bin/',
    'ENV PGDATA=/var/lib/postgresql/data',
    'RUN install -d -o 65534 -g 65534 -m 700 $PGDATA',
    'VOLUME /var/lib/postgresql/data',
    'USER 65534:65534',
    'CMD ["start"]',
  ]
  writeFileSync(join(context, 'Dockerfile'), `${recipe.join('\n')}\n`)
  await docker('build', '--quiet', '--tag', tag, context)
}
