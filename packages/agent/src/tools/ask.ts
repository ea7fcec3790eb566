import { z } from 'zod'
import type { Tool } from './tool.ts'

const input = z.object({
  question: z
    .string()
    .trim()
    .min(1)
    .max(4_000)
    .describe('Complete in itself: what you need to know, why, and the choices that you see.'),
})
type Input = z.infer<typeof input>

export const ask: Tool<Input> = {
  name: 'ask',
  kind: 'other',
  describe: () =>
    `Asks a person and ends your turn; the answer comes as the next message, perhaps much later. Only for what you can neither find out nor decide ` +
    `yourself. Finish other calls first.`,
  input,
  title: ({ question }) => {
    const [line = ''] = question.split('\n')
    return line.length > 160 ? `${line.slice(0, 160)}…` : line
  },
  run: async ({ question }) => ({
    result: { status: 'asked', note: 'Your turn ends here. The answer comes as the next message.' },
    content: [{ type: 'content', content: { type: 'text', text: question } }],
    question,
  }),
}
