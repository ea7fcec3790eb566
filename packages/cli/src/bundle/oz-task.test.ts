import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { endProcessTree } from '@openoz/machine'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { until } from '../../../../test/support/poll.ts'

/**
 * The program that a container's init starts, outside of a container: in a folder that is laid out as a bundle, with the shell and the tools of
 * this machine. In a container its end is that of everything; here only that of itself and the agent.
 */
const programs = fileURLToPath(new URL('./programs/', import.meta.url))
const dash = which('dash')
const isTested = dash !== undefined && process.platform === 'linux'
if (!isTested) {
  console.error('NOT TESTED: oz-task, the guard of leases in containers: there is no dash here')
  if (process.env.CI === 'true') throw new Error('dash has to be installed in CI')
}

let folder: string
const id = crypto.randomUUID()
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'oz-task-'))
  for (const name of ['bin', 'libexec', 'lib', 'app', 'control/spool', 'control/home', 'control/tmp'])
    mkdirSync(join(folder, name), { recursive: true })
  for (const name of ['oz', 'oz-task']) copyFileSync(join(programs, name), join(folder, 'bin', name))
  symlinkSync(dash ?? '', join(folder, 'bin/dash'))
  symlinkSync(process.execPath, join(folder, 'bin/node'))
  for (const name of ['dd', 'sleep']) symlinkSync(which(name) ?? '', join(folder, 'libexec', name))
})
afterEach(async () => {
  await endProcessTree({ marker: `OZ_EXECUTION_ID=${id}` }, 0)
  rmSync(folder, { recursive: true, force: true })
})

function which(name: string): string | undefined {
  const found = spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).stdout.trim()
  return found === '' ? undefined : found
}

function start(command: string[], { env = {}, text = (script: string) => script } = {}) {
  const script = join(folder, 'bin/oz-task')
  writeFileSync(script, text(readFileSync(script, 'utf8')))
  const child: ChildProcess = spawn(dash ?? '', [script, ...command], {
    cwd: folder,
    env: {
      PATH: process.env.PATH,
      HOME: folder,
      OZ_EXECUTION_ID: id,
      OZ_SPOOL_DIR: join(folder, 'control/spool'),
      ...env,
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
    output += chunk
  })
  const ended = once(child, 'exit').then(([code, signal]) => ({ code, signal, output }))
  return { child, ended }
}

const agent = (script: string, options?: Parameters<typeof start>[1]) => start(['sh', '-c', script], options)
const deadlineIn = (ms: number) => `read -r up rest </proc/uptime; echo "$((\${up%.*}\${up#*.}0 + ${ms}))"`
const there = (name: string) =>
  until(
    () => existsSync(join(folder, name)),
    (found) => found,
  )

describe.skipIf(!isTested)('a task in its container', () => {
  test.each([
    ['exit 0', 0],
    ['exit 7', 7],
    ['exit 127', 127],
    ['exit 200', 200],
    ['kill -9 $$', 79],
    ['kill -TERM $$', 143],
  ])('whose agent does `%s` ends with %i', async (script, code) => {
    expect(await agent(script).ended).toMatchObject({ code, signal: null })
  })

  test('ends with the code of an agent that ran for longer than a look at its lease takes', async () => {
    expect(await agent(`${deadlineIn(60_000)} >"$OZ_SPOOL_DIR/lease"; sleep 2.5; exit 9`).ended).toMatchObject({
      code: 9,
    })
  })

  test.each(['TERM', 'INT', 'HUP', 'USR2'] as const)(
    'hands %s to the agent, once, and waits for its own end',
    async (signal) => {
      // Node, as agents are: what a shell starts beside itself ignores SIGINT, and only a program of its own mind listens to it again.
      const script = `process.on('SIG${signal}', () => console.log('got')); setTimeout(() => process.exit(5), 700); fs.writeFileSync('ready', '')`
      const task = start([process.execPath, '-e', script])
      await there('ready')
      task.child.kill(`SIG${signal}`)
      expect(await task.ended).toMatchObject({ code: 5, output: 'got\n' })
    },
  )

  test('whose agent ends in the moment in which it is asked to says how it ended', async () => {
    for (let round = 0; round < 20; round++) {
      rmSync(join(folder, 'ready'), { force: true })
      const task = agent('touch ready; exit 6')
      await there('ready')
      task.child.kill('SIGTERM')
      expect([6, 143]).toContain((await task.ended).code)
    }
  })

  test('ends with 75, and its agent with it, when a frozen one has lost its lease', async () => {
    const begun = performance.now()
    const task = agent(`echo $$ >pid; ${deadlineIn(1_500)} >"$OZ_SPOOL_DIR/lease"; kill -STOP $$; echo alive >alive`)
    expect(await task.ended).toMatchObject({ code: 75, signal: null })
    const ms = performance.now() - begun
    expect(ms).toBeGreaterThan(1_300)
    expect(ms).toBeLessThan(5_000)
    const pid = Number(readFileSync(join(folder, 'pid'), 'utf8'))
    await until(
      () => existsSync(`/proc/${pid}`) && !isZombie(pid),
      (lives) => !lives,
    )
    expect(existsSync(join(folder, 'alive'))).toBe(false)
  })

  test('goes on as long as the agent moves its deadline in time', async () => {
    const renew = `${deadlineIn(900)} >"$OZ_SPOOL_DIR/lease.tmp"; mv "$OZ_SPOOL_DIR/lease.tmp" "$OZ_SPOOL_DIR/lease"`
    const script = `i=0; while [ $i -lt 25 ]; do ${renew}; sleep 0.1; i=$((i + 1)); done; rm "$OZ_SPOOL_DIR/lease"; sleep 1.2; exit 3`
    expect(await agent(script).ended).toMatchObject({ code: 3 })
  })

  test.each([
    ['nothing', ': >LEASE'],
    ['a word', 'echo soon >LEASE'],
    ['too many digits', 'echo 99999999999999999999 >LEASE'],
    ['a negative number', 'echo -5 >LEASE'],
    ['what a shell takes for octal, and passed', 'echo 0100 >LEASE'],
    ['one long line', 'head -c 20000000 /dev/zero | tr "\\0" 1 >LEASE'],
    ['a link to a deadline that has passed', 'echo 1 >OTHER; ln -s OTHER LEASE'],
    ['a pipe', 'mkfifo LEASE'],
    ['a folder', 'mkdir LEASE'],
  ])('takes a lease file that is %s for no deadline, and the next one that is one counts', async (_, write) => {
    const lease = join(folder, 'control/spool/lease')
    const words = write.replaceAll('LEASE', lease).replaceAll('OTHER', join(folder, 'other'))
    const task = agent(
      `${words}; sleep 1.5; touch alive; ${deadlineIn(300)} >${lease}.tmp; rm -rf ${lease}; mv ${lease}.tmp ${lease}; sleep 600`,
    )
    expect(await task.ended).toMatchObject({ code: 75 })
    expect(existsSync(join(folder, 'alive'))).toBe(true)
  })

  test('believes no date that is further away than the first one was', async () => {
    const put = (words: string) => `${words} >"$OZ_SPOOL_DIR/new"; mv "$OZ_SPOOL_DIR/new" "$OZ_SPOOL_DIR/lease"`
    const script = `${put(deadlineIn(2_500))}; sleep 1.5; ${put('echo 999999999999999')}; date +%s%N >at; kill -STOP $$`
    // 2.5 s after the first look in the place of 15 min.
    const shorter = (text: string) => text.replaceAll('900000', '2500').replace('left + 10000', 'left')
    expect(await agent(script, { text: shorter }).ended).toMatchObject({ code: 75 })
    expect(Date.now() - Number(readFileSync(join(folder, 'at'), 'utf8')) / 1e6).toBeGreaterThan(1_500)
  })

  test('has a home and a folder for temporary files where the image has none', async () => {
    const show = 'echo "$HOME $TMPDIR"'
    const control = join(folder, 'control')
    const none = { HOME: '/nowhere', TMPDIR: '/nowhere' }
    expect((await agent(show, { env: none }).ended).output).toBe(`${control}/home ${control}/tmp\n`)
    const own = { HOME: folder, TMPDIR: folder }
    expect((await agent(show, { env: own }).ended).output).toBe(`${folder} ${folder}\n`)
  })

  test('starts oz without what the image sets for its own programs, and hands that on by other names', async () => {
    const app =
      'console.log(process.argv.slice(2).join(" "), process.env.NODE_OPTIONS, process.env.OZ_IMAGE_NODE_OPTIONS)'
    writeFileSync(join(folder, 'app/oz.mjs'), app)
    const script = readFileSync(join(folder, 'bin/oz'), 'utf8')
    writeFileSync(join(folder, 'bin/oz'), script.replace('/agent/bin/dash', dash ?? ''))
    chmodSync(join(folder, 'bin/oz'), 0o755)
    const { output, code } = await start(['oz', 'agent', 'run', 'two words'], {
      env: { NODE_OPTIONS: '--require /app/nowhere.js' },
    }).ended
    expect([output, code]).toEqual(['agent run two words undefined --require /app/nowhere.js\n', 0])
  })
})

function isZombie(pid: number): boolean {
  try {
    return / Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return true
  }
}
