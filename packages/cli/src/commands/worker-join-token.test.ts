import { expect, test } from 'vitest'
import { useControlPlane } from '../test-support/control-plane.ts'
import { startOz } from '../test-support/run-program.ts'

const cp = useControlPlane()
const oz = (...args: string[]) => startOz(['worker', 'join-token', ...args], cp.env).ended

test('a join token is printed with when it ends, and with the line for the machine', async () => {
  const json = await oz('--worker-id', 'build-1', '--expires-in', '10m', '--output-format', 'json')
  const { token, expires_at, ...rest } = JSON.parse(json.stdout) as Record<string, string>
  expect([json.exitCode, rest]).toEqual([0, {}])
  expect(token).toMatch(/^jt-[\w-]{43}$/)
  expect(Math.abs(Date.parse(expires_at ?? '') - Date.now() - 600_000)).toBeLessThan(30_000)

  const text = await oz('--output-format', 'text')
  expect(text.stdout).toMatch(/^jt-[\w-]{43}\n$/)
  const pretty = await oz()
  expect(pretty.stderr).toContain(`/install.sh | sh -s -- --join ${pretty.stdout.trim()}\n`)
})

test.each(['', '59s', '25h', 'soon'])('a token for "%s" is refused with the option’s name', async (duration) => {
  const { exitCode, stderr } = await oz('--expires-in', duration)
  expect([exitCode, stderr]).toEqual([2, expect.stringContaining('--expires-in')])
})
