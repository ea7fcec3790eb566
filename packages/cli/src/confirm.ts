import { createInterface } from 'node:readline/promises'
import { AppError } from '@openoz/protocol'

/** Asks at the terminal, and throws `usage` for every answer but yes, and where there is nobody to ask. */
export async function confirm(question: string): Promise<void> {
  if (!process.stdin.isTTY) throw new AppError('usage', { problem: `${question} There is nobody to ask: add --force.` })
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  const answer = await terminal.question(`${question} [y/N] `)
  terminal.close()
  if (!/^y(es)?$/i.test(answer.trim())) throw new AppError('usage', { problem: 'Nothing was changed.' })
}
