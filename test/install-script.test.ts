import { execFile, execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { promisify } from 'node:util'
import { gunzipSync } from 'node:zlib'
import { afterAll, expect, test } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'

/** What the control plane serves to machines that have nothing. What the script does there: `machine-install.test.ts`. */
const folder = mkdtempSync(join(tmpdir(), 'oz-install-script-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const run = promisify(execFile)

const shells = [['sh'], ['dash'], ['bash', '--posix'], ['busybox', 'sh']].filter(
  ([program = '']) => spawnSync(program, ['-c', 'true']).error === undefined,
)

/** With a `Host` that `fetch` would not send. */
function scriptFor(url: string, host: string, headers: Record<string, string> = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    request(`${url}/install.sh`, { headers: { host, ...headers } }, (response) => text(response).then(resolve, reject))
      .on('error', reject)
      .end()
  })
}

const addressIn = (script: string) => /^server=(.*)$/m.exec(script)?.[1]

test('the script is one for every shell, and names the address that it was asked for at', async () => {
  await using cp = await startControlPlane()
  const answer = await fetch(`${cp.url}/install.sh`)
  expect(answer.headers.get('content-type')).toContain('text/x-shellscript')
  const script = await answer.text()
  expect(addressIn(script)).toBe(`'${cp.url}'`)
  expect(script).not.toContain('@SERVER@')
  const file = join(folder, 'install.sh')
  writeFileSync(file, script)
  expect(shells.length).toBeGreaterThan(1)
  for (const [program = '', ...args] of shells) execFileSync(program, [...args, '-n', file])
  expect(addressIn(await scriptFor(cp.url, 'oz.example.com:8443'))).toBe(`'http://oz.example.com:8443'`)
  expect(addressIn(await scriptFor(cp.url, '[::1]:4747'))).toBe(`'http://[::1]:4747'`)
  // Some are refused before that.
  for (const host of ["x'; touch /oops; '", '$(id)', 'a b', 'x/../y', 'user@host', ''])
    expect([`'${cp.url}'`, undefined], host).toContain(addressIn(await scriptFor(cp.url, host)))
})

test('with a public address the script names that, whatever it is made of', async () => {
  await using cp = await startControlPlane({ env: { OZ_PUBLIC_URL: "https://oz.example.com/it's" } })
  const script = await scriptFor(cp.url, 'else.example.com')
  expect(addressIn(script)).toBe(`'https://oz.example.com/it'\\''s'`)
  expect(
    execFileSync('sh', ['-c', `${/^server=.*$/m.exec(script)?.[0]}; printf %s "$server"`], { encoding: 'utf8' }),
  ).toBe("https://oz.example.com/it's")
})

test('behind a proxy the address is the public one, or what a trusted proxy was asked by; else there is no script', async () => {
  const host = 'oz.example.com'
  const secure = { 'x-forwarded-proto': 'https' }
  {
    await using cp = await startControlPlane({ env: { OZ_TRUSTED_PROXY: '127.0.0.0/8' } })
    expect(addressIn(await scriptFor(cp.url, host, secure))).toBe(`'https://${host}'`)
    const unclear: Record<string, string>[] = [
      {},
      { 'x-forwarded-for': '203.0.113.9' },
      { 'x-forwarded-proto': 'gopher' },
    ]
    for (const headers of unclear) {
      const refused = await scriptFor(cp.url, host, headers)
      expect([addressIn(refused), JSON.parse(refused).code]).toEqual([undefined, 'public_address_unknown'])
    }
  }
  {
    await using cp = await startControlPlane()
    for (const name of ['x-forwarded-proto', 'x-forwarded-for', 'forwarded'])
      expect(JSON.parse(await scriptFor(cp.url, host, { [name]: 'https' }))).toMatchObject({
        status: 503,
        code: 'public_address_unknown',
        detail: expect.stringContaining('--public-url'),
      })
  }
  await using cp = await startControlPlane({ env: { OZ_PUBLIC_URL: `https://${host}` } })
  expect(addressIn(await scriptFor(cp.url, 'inside', { 'x-forwarded-for': '203.0.113.9' }))).toBe(`'https://${host}'`)
})

test('what a machine’s user has set for curl changes nothing, and without a home there is a reason', async () => {
  await using cp = await startControlPlane()
  const script = await (await fetch(`${cp.url}/install.sh`)).text()
  const home = join(folder, 'home')
  mkdirSync(home)
  writeFileSync(join(home, '.curlrc'), 'include\nfail\n')
  const start = (env: Record<string, string>, args: string[]) =>
    run('sh', ['-c', 'printf %s "$SCRIPT" | sh -s -- "$@"', 'sh', ...args], {
      env: { PATH: process.env.PATH, TMPDIR: folder, SCRIPT: script, ...env },
    }).catch((error: { stderr: string }) => error)
  const { stderr } = await start({ HOME: home }, ['--join', 'jt-unknown'])
  expect(stderr).toContain('No join token matches')
  if (process.getuid?.() !== 0)
    expect((await start({}, ['--uninstall'])).stderr).toContain('HOME: is not set. It says where')
})

test('of a script that was cut on the way nothing runs', async () => {
  await using cp = await startControlPlane()
  const script = await (await fetch(`${cp.url}/install.sh`)).text()
  const lengths = Array.from({ length: 40 }, (_, n) => Math.floor((n * script.length) / 40))
  const last = Array.from({ length: 25 }, (_, n) => script.length - 2 - n)
  for (const length of [...lengths, ...last]) {
    // Whoever ran would say that there is no `uname`, or no folder.
    const { stdout, stderr } = spawnSync('/bin/sh', ['-s', '--', '--uninstall'], {
      input: script.slice(0, length),
      env: { PATH: '/nowhere', HOME: folder },
      encoding: 'utf8',
    })
    expect([length, stdout, /^error: /m.test(stderr)]).toEqual([length, '', false])
  }
})

test('a bundle is sent as a compressed archive that is made once, and anew for another bundle', async () => {
  let packed = 0
  let hash = 'a'.repeat(64)
  const find = async () => ({
    hash,
    pack: () => {
      packed++
      return Readable.from([Buffer.from(`archive of ${hash}`)])
    },
  })
  await using cp = await startControlPlane({ bundles: { find } })
  const url = `${cp.url}/install/agent-linux-amd64.tar.gz`
  const answers = await Promise.all([fetch(url), fetch(url), fetch(url)])
  for (const answer of answers) {
    expect(answer.headers.get('etag')).toBe(`"${hash}"`)
    const bytes = Buffer.from(await answer.arrayBuffer())
    expect(answer.headers.get('content-length')).toBe(`${bytes.length}`)
    expect(gunzipSync(bytes).toString()).toBe(`archive of ${hash}`)
  }
  expect(packed).toBe(1)
  expect((await fetch(url, { headers: { 'if-none-match': `"${hash}"` } })).status).toBe(304)
  hash = 'b'.repeat(64)
  const archives = join(cp.folder, 'server-0', 'install')
  const draft = (name: string) => join(archives, `agent-linux-amd64-${name}.tar.gz.x.tmp`)
  for (const name of ['old', 'new']) writeFileSync(draft(name), '')
  utimesSync(draft('old'), 0, 0)
  expect(gunzipSync(await (await fetch(url)).arrayBuffer()).toString()).toBe(`archive of ${hash}`)
  expect(packed).toBe(2)
  expect(readdirSync(archives).filter((name) => name.endsWith('.tmp'))).toEqual(['agent-linux-amd64-new.tar.gz.x.tmp'])
  expect((await fetch(`${cp.url}/install/agent-linux-riscv64.tar.gz`)).status).toBe(404)
})

test('where there is no bundle the answer says how to make one, and not where it was looked for', async () => {
  await using cp = await startControlPlane()
  const answer = await cp.request('GET', '/install/agent-linux-arm64.tar.gz', { key: null })
  expect(answer).toMatchObject({ status: 503, body: { code: 'agent_bundle_missing' } })
  expect(answer.body.detail).toContain('linux/arm64')
  expect(answer.body.detail).not.toContain('/tmp')
})
