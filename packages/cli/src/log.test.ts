import pc from 'picocolors'
import { expect, test } from 'vitest'
import { prettyLine } from './log.ts'

const plain = pc.createColors(false)

test('a log line for people has the time, who speaks, what happened and the rest', () => {
  const line = JSON.stringify({
    level: 30,
    time: 0,
    name: 'worker',
    pid: 1,
    hostname: 'x',
    msg: 'connected',
    workerId: 'a',
    slots: 2,
  })
  expect(prettyLine(line, plain)).toMatch(/^\d\d:\d\d:\d\d worker connected workerId=a slots=2$/)
})

test('an error shows its message, not its stack, and nothing that moves the cursor', () => {
  const line = JSON.stringify({
    level: 50,
    time: 0,
    name: 'oz',
    msg: 'failed',
    err: { message: 'no \u001b[2Jroom', stack: 'at x' },
  })
  expect(prettyLine(line, plain)).toMatch(/ oz failed: no room$/)
  expect(prettyLine('not JSON', plain)).toBe('not JSON')
})
