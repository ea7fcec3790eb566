import pc from 'picocolors'
import { expect, test } from 'vitest'
import { journalLine, loggedError, prettyLine } from './log.ts'

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

test('in systemd’s journal a line has its priority, and stays JSON', () => {
  const lines = [10, 20, 30, 40, 50, 60].map((level) => journalLine(JSON.stringify({ level, msg: 'x' })))
  expect(lines.map((line) => line.slice(0, 3))).toEqual(['<7>', '<7>', '<6>', '<4>', '<3>', '<3>'])
  expect(lines[0]?.slice(3)).toBe('{"level":10,"msg":"x"}')
})

test('a log keeps what helps of an error, and not the rows and requests that it carries', () => {
  const cause = Object.assign(new Error('duplicate key'), {
    code: '23505',
    detail: 'Key (prompt)=(secret plan) exists',
  })
  const error = Object.assign(new Error('could not save', { cause }), { requestBodyValues: { prompt: 'secret plan' } })
  const logged = loggedError(error)
  expect(logged).toMatchObject({
    type: 'Error',
    message: 'could not save',
    cause: { message: 'duplicate key', code: '23505' },
  })
  expect(JSON.stringify(logged)).toContain('log.test.ts')
  expect(JSON.stringify(logged)).not.toContain('secret plan')
  expect(loggedError('just words')).toBe('just words')
})
