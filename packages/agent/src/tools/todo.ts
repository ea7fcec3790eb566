import { z } from 'zod'
import type { Tool, ToolCall, ToolOutput } from './tool.ts'

const input = z.object({
  todos: z
    .array(
      z.object({
        title: z.string().trim().min(1).max(300),
        description: z.string().max(2_000).optional(),
        status: z.enum(['pending', 'in_progress', 'completed']),
      }),
    )
    .max(100)
    .describe('The whole list, every time: it replaces the one before.'),
})
type Input = z.infer<typeof input>

export const todo: Tool<Input> = {
  name: 'todo',
  kind: 'think',
  describe: () =>
    `Writes down the plan of your work, for yourself and for those who watch. Use it for work of three or more steps: give the whole list each ` +
    `time, with one step in_progress, and call it again as steps are completed.`,
  input,
  title: ({ todos }) => {
    const current = todos.find(({ status }) => status === 'in_progress')
    return current ? current.title : `Plan of ${todos.length} steps`
  },
  run: plan,
}

async function plan({ todos }: Input, { sink }: ToolCall): Promise<ToolOutput> {
  const entries = todos.map(({ title, description, status }) => {
    const content = description === undefined || description.trim() === '' ? title : `${title}\n${description}`
    return { content, status, priority: 'medium' as const }
  })
  sink.emit({ type: 'plan', data: { entries } })
  const completed = todos.filter(({ status }) => status === 'completed').length
  return { result: { todos: todos.length, completed } }
}
