import { z } from 'zod'

/** What several blocks of the config file are made of. */
export const text = z.string().min(1, 'must not be empty')

export const environmentEntry = z.strictObject({
  name: text.regex(/^\S+$/, 'must not contain whitespace').regex(/^[^=]+$/, 'must not contain ='),
  /** Without a value the worker's own is passed on. */
  value: z.string().optional(),
})
export type EnvironmentEntry = z.infer<typeof environmentEntry>
