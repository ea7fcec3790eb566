import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createMasker } from '@openoz/machine'
import { expect, test } from 'vitest'
import { readLastWords } from './last-words.ts'

async function lastWords(lines: (string | object)[], secrets: string[] = []): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'oz-last-words-'))
  const file = join(folder, 'agent.log')
  try {
    writeFileSync(file, lines.map((line) => `${typeof line === 'string' ? line : JSON.stringify(line)}\n`).join(''))
    return await readLastWords(file, createMasker(secrets).mask)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

test('warnings and errors of the agent are sentences, without what else their lines hold', async () => {
  const words = await lastWords([
    { level: 30, msg: 'command received', name: 'agent', command: 'turn' },
    {
      level: 40,
      msg: 'the turn could not be performed',
      prompt: 'fix it',
      err: { message: 'disk\nfull', stack: 'at x' },
    },
    { level: 50, msg: 'The agent failed.', error: 'no memory' },
  ])
  expect(words).toBe('The turn could not be performed: disk full.\nThe agent failed: no memory.')
})

test('an agent that only told of its work has no last words', async () => {
  expect(await lastWords([{ level: 30, msg: 'command received' }, { time: 1 }, '{"level":50,"msg":"cut o'])).toBe('')
})

test('what other programs wrote is shown as it is, its last lines only', async () => {
  const lines = Array.from({ length: 20 }, (_, index) => `line ${index}`)
  expect(await lastWords(lines)).toBe(lines.slice(-12).join('\n'))
})

test('what is said again and again is said once', async () => {
  const away = { level: 40, msg: 'the control plane is away', err: { message: 'ECONNREFUSED' } }
  expect(await lastWords([away, away, away])).toBe('The control plane is away: ECONNREFUSED.')
})

test('secrets are masked, over several lines and where the log is cut off, too', async () => {
  const key = '-----BEGIN KEY-----\nabcdefgh\nijklmnop\n-----END KEY-----'
  expect(await lastWords([{ level: 50, msg: 'refused', err: { message: `key ${key} is wrong` } }, key], [key])).toBe(
    'Refused: key *** is wrong.\n***',
  )
  const secret = 's3cr3t-'.repeat(20)
  for (let cut = 0; cut < 140; cut += 10) {
    const rest = 'x'.repeat(8 * 1024 - 'end\n'.length - 1 - cut)
    expect(await lastWords([`${secret}${rest}`, 'end'], [secret])).toBe('end')
    expect(await lastWords([`${secret}${rest}`], [secret])).toBe('')
  }
})
