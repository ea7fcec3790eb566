import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { showProgress } from './progress.ts'

function terminal(isTTY = true) {
  const written: string[] = []
  return { written, isTTY, write: (text: string) => written.push(text) }
}

const shown = '\r\u001b[Kwaiting for http://127.0.0.1:4747 (0 s)'
const erased = '\r\u001b[K'

test('what is waited for is shown on a terminal until something is printed', async () => {
  const stderr = terminal()
  const stdout = terminal()
  using progress = showProgress(stderr, { afterMs: 1 })
  progress.waitFor('http://127.0.0.1:4747')
  await expect.poll(() => stderr.written).toEqual([shown])
  progress.before(stdout).write('the answer')
  expect([stderr.written, stdout.written]).toEqual([[shown, erased], ['the answer']])
  await sleep(20)
  expect(stderr.written).toEqual([shown, erased])
})

test('the line goes when the command ends, and never comes where it was quick', async () => {
  const slow = terminal()
  {
    using progress = showProgress(slow, { afterMs: 1 })
    progress.waitFor('http://127.0.0.1:4747')
    await expect.poll(() => slow.written.length).toBe(1)
  }
  expect(slow.written).toEqual([shown, erased])
  const quick = terminal()
  {
    using progress = showProgress(quick)
    progress.waitFor('http://127.0.0.1:4747')
  }
  expect(quick.written).toEqual([])
})

test('a file or a pipe gets none of it', async () => {
  const stderr = terminal(false)
  using progress = showProgress(stderr, { afterMs: 1 })
  progress.waitFor('http://127.0.0.1:4747')
  await sleep(20)
  expect(stderr.written).toEqual([])
})
