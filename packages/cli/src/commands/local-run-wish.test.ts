import { expect, test } from 'vitest'
import { type LocalRunOptions, readLocalRunWish } from './local-run-wish.ts'

const read = (options: LocalRunOptions, given: string[] = []) => readLocalRunWish(options, { given, env: {} })

test('what cannot be is said in one sentence', async () => {
  await expect(read({ prompt: 'x', harness: 'claude' }, ['--harness'])).rejects.toMatchObject({
    code: 'flag_not_available',
    message: expect.stringContaining('--harness claude needs another harness than the built-in one'),
  })
  await expect(read({ prompt: 'x', conversation: 'nope' })).rejects.toMatchObject({
    code: 'flag_invalid',
    message: expect.stringMatching(/^--conversation is not valid: "nope" is no id of a conversation/),
  })
  for (const prompt of ['', ' \n', undefined]) await expect(read({ prompt })).rejects.toMatchObject({ code: 'usage' })
})
