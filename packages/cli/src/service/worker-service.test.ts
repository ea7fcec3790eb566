import { execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { readWorkerConfig } from '@openoz/worker'
import { expect, test } from 'vitest'
import { ozProgram, workerProgram } from '../program-files.ts'
import { makeTestHome, type ProgramEnd, type TestHome } from '../test-support/run-program.ts'
import { environmentFileText, unitText } from './service-unit.ts'
import { installService } from './worker-service.ts'

const run = promisify(execFile)
const key = 'wk-key-of-the-service'
const flags = ['--worker-id', 'build-1', '--backend', 'direct', '--server-url', 'https://oz.example.com']

/** No systemd of a user is reachable without XDG_RUNTIME_DIR, so nothing on this machine is started or stopped. */
function worker(args: string[], { env, folder }: TestHome, more: NodeJS.ProcessEnv = {}): Promise<ProgramEnd> {
  const bin = join(folder, 'bin')
  mkdirSync(bin, { recursive: true })
  writeFileSync(join(bin, 'oz'), `#!/bin/sh\nexec ${ozProgram} "$@"\n`)
  chmodSync(join(bin, 'oz'), 0o755)
  const PATH = [bin, env.PATH].join(delimiter)
  const options = { cwd: folder, env: { ...env, PATH, OZ_API_KEY: key, ...more } }
  return run(process.execPath, [workerProgram, ...args], options).then(
    ({ stdout, stderr }) => ({ exitCode: 0, stdout, stderr }),
    ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) => ({
      exitCode: code,
      stdout,
      stderr,
    }),
  )
}

const unitFile = ({ folder }: TestHome) => join(folder, 'config/systemd/user/oz-agent-worker.service')
const environmentFile = ({ folder }: TestHome) => join(folder, 'config/openoz/oz-agent-worker.env')

test('install writes a unit without a secret, and the key into a file of mode 0600', async () => {
  await using home = await makeTestHome()
  const proxy = 'http://me:proxy-password@proxy.example.com:3128'
  const secretValue = 'two words, "quotes", $HOME, `id` and \\'
  const args = ['install', '--user', ...flags, '--no-cleanup', '-e', `TOKEN=${secretValue}`]
  const { exitCode, stdout, stderr } = await worker(args, home, { HTTPS_PROXY: proxy })
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' })
  expect(stdout).toContain('systemctl --user enable oz-agent-worker.service')
  expect(stdout).toContain('loginctl enable-linger')

  const unit = readFileSync(unitFile(home), 'utf8')
  expect(unit).toContain(`ExecStart=${process.execPath} ${workerProgram} --backend direct`)
  expect(unit).toContain(
    '--server-url https://oz.example.com --worker-id build-1 --no-cleanup --env TOKEN --drain stop\n',
  )
  for (const line of [
    'KillMode=process',
    'RestartKillSignal=SIGUSR2',
    'Restart=always',
    `EnvironmentFile=${environmentFile(home)}`,
  ])
    expect(unit.split('\n')).toContain(line)
  for (const secret of [key, 'proxy-password', 'two words']) expect(unit + stdout).not.toContain(secret)

  expect(statSync(environmentFile(home)).mode & 0o777).toBe(0o600)
  // Its quotes are the shell's, so a shell can say what systemd would read.
  const read = `. ${environmentFile(home)}; printf '%s|' "$OZ_API_KEY" "$HTTPS_PROXY" "$TOKEN"`
  expect(execFileSync('sh', ['-c', read], { encoding: 'utf8' })).toBe(`${key}|${proxy}|${secretValue}|`)
})

test('volumes of containers are the service’s as they were given', async () => {
  await using home = await makeTestHome()
  const docker = ['--worker-id', 'build-1', '--backend', 'docker', '--server-url', 'https://oz.example.com']
  const { stdout } = await worker(['install', '--user', '--print', ...docker, '-v', '/srv/a=b:/cache:ro'], home)
  expect(stdout).toContain('--volumes /srv/a=b:/cache:ro')
})

test('uninstall removes what install wrote, and says so when there is nothing', async () => {
  await using home = await makeTestHome()
  await worker(['install', '--user', ...flags], home)
  expect((await worker(['uninstall', '--user'], home)).stdout).toContain(`Removed ${unitFile(home)}`)
  expect([unitFile(home), environmentFile(home)].filter((file) => existsSync(file))).toEqual([])
  const again = await worker(['uninstall', '--user'], home)
  expect(again).toMatchObject({ exitCode: 0, stdout: `There is no ${unitFile(home)}.\n` })
})

test('what the unit starts is the worker, with the flags and the key that were given', async () => {
  await using home = await makeTestHome()
  const direct = { state_dir: join(home.folder, 'state') }
  writeFileSync(join(home.folder, 'worker.yaml'), JSON.stringify({ worker_id: 'named-in-file', backend: { direct } }))
  const args = ['install', '--user', '--config-file', 'worker.yaml', '--server-url', 'http://127.0.0.1:1']
  expect((await worker(args, home)).stderr).toBe('')
  const unit = readFileSync(unitFile(home), 'utf8')
  const [, command] = /^ExecStart=(.*)$/m.exec(unit) ?? []
  const [, path] = /^Environment=(PATH=.*)$/m.exec(unit) ?? []
  // As systemd would: in `/`, with nothing but the unit's own environment.
  const script = `set -a; . ${environmentFile(home)}; exec ${command}`
  const service = spawn('sh', ['-c', script], { cwd: '/', env: { PATH: path?.slice('PATH='.length) }, stdio: 'pipe' })
  const ended = once(service, 'close')
  let log = ''
  let isStopping = false
  service.stderr.on('data', (chunk: Buffer) => {
    log += chunk
    if (log.includes('Not connected to the server') && !isStopping) isStopping = service.kill('SIGTERM')
  })
  expect(await ended).toEqual([0, null])
  expect(log).toContain('nothing listens there at 127.0.0.1 port 1')
})

test('--print writes nothing and shows no value of the environment file', async () => {
  await using home = await makeTestHome()
  const { stdout } = await worker(['install', '--print', ...flags], home)
  expect(stdout).toContain('# /etc/systemd/system/oz-agent-worker.service')
  expect(stdout).toContain('OZ_API_KEY=…')
  expect(stdout).not.toContain(key)
  expect((await worker(['install', '--user', '--print', ...flags], home)).stdout).toContain(unitFile(home))
  expect(existsSync(unitFile(home))).toBe(false)
})

test('what would not work as a service is refused before anything is written', async () => {
  await using home = await makeTestHome()
  const noKey = await worker(['install', '--user', ...flags], home, { OZ_API_KEY: undefined })
  expect(noKey.stderr).toContain('[not_logged_in]')
  const noId = await worker(['install', '--user', '--backend', 'direct'], home)
  expect(noId).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('A worker id is required') })
  expect(existsSync(join(home.folder, 'config'))).toBe(false)
  writeFileSync(join(home.folder, 'config'), '')
  const refused = await worker(['install', '--user', ...flags], home)
  expect(refused.exitCode).toBe(1)
  expect(refused.stderr).toContain('[service_install_failed]')
})

test.each(['darwin', 'win32'] as const)(
  'on %s nothing is written, since no systemd would read it',
  async (platform) => {
    await using home = await makeTestHome()
    const env = { ...home.env, OZ_API_KEY: key }
    const config = readWorkerConfig({ flags: { workerId: 'w', backend: 'direct' }, env, platform: 'darwin' })
    const context = { flags: { user: true }, env, say: () => {}, platform }
    await expect(installService({ flags: {}, config }, context)).rejects.toThrow('has no systemd')
    expect(existsSync(join(home.folder, 'config'))).toBe(false)
  },
)

const hasAnalyze = await run('systemd-analyze', ['--version']).then(
  () => true,
  () => false,
)

test.skipIf(!hasAnalyze)('systemd finds no fault in the unit', async () => {
  await using home = await makeTestHome()
  const environment = join(home.folder, 'a folder with 100 %', 'worker.env')
  mkdirSync(dirname(environment))
  writeFileSync(environment, environmentFileText({ OZ_API_KEY: key }))
  for (const isUsers of [false, true]) {
    const file = join(home.folder, `oz-agent-worker-${isUsers}.service`)
    const command = [process.execPath, workerProgram, '--worker-id', 'a "b" $c %d \\e', '--backend', 'direct']
    const path = '/opt/my programs/bin:/usr/bin'
    writeFileSync(file, unitText({ workerId: 'build %1', command, path, environmentFile: environment, isUsers }))
    const { stdout, stderr } = await run('systemd-analyze', ['verify', file])
    const said = `${stdout}${stderr}`.split('\n').filter((line) => line.includes('oz-agent-worker'))
    expect(said).toEqual([])
  }
})
