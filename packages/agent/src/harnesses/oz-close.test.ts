import { expect, test } from 'vitest'
import { said, startHarnessFixture, turn } from '../../../../test/support/harness-fixture.ts'
import { closeGraceMs } from './harness.ts'

test('a session whose tool does not stop is closed before its end is not waited for any longer', async () => {
  const command = 'head -c 2000000 /dev/zero | tr "\\0" x'
  await using oz = await startHarnessFixture({
    steps: [{ toolCalls: [{ name: 'run_command', arguments: { command } }] }, { text: 'All right.' }],
  })
  const reached = Promise.withResolvers<void>()
  const kept = Promise.withResolvers<undefined>()
  const session = await oz.open({
    keepOutput: () => {
      reached.resolve()
      return kept.promise
    },
  })
  const ended = session.prompt(turn('go'), new AbortController().signal)
  await reached.promise
  session.interrupt(said('stop', 'interrupt'))
  expect(await ended).toMatchObject({ outcome: 'SUCCEEDED', message: 'All right.' })
  const start = performance.now()
  await session.close()
  expect(performance.now() - start).toBeLessThan(closeGraceMs)
  kept.resolve(undefined)
})
