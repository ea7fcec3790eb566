import { z } from 'zod'

/** As for every path that a model writes. */
export const pathText = z
  .string()
  .min(1)
  .max(4096)
  .refine((text) => !text.includes('\0'), 'must not hold NUL characters')

const knownEdit = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('create'),
    path: pathText,
    content: z.string(),
    overwrite: z.boolean().optional(),
  }),
  z.object({
    type: z.literal('replace'),
    path: pathText,
    old_text: z.string().min(1),
    new_text: z.string(),
    replace_all: z.boolean().optional(),
  }),
  z.object({ type: z.literal('move'), path: pathText, new_path: pathText }),
  z.object({ type: z.literal('delete'), path: pathText }),
])
export type Edit = z.infer<typeof knownEdit>

const described = z.object({
  type: z.enum(['create', 'replace', 'move', 'delete']),
  path: z.string().describe('The file, relative to the folder that commands start in.'),
  content: z.string().optional().describe('create: the whole text of the file.'),
  overwrite: z.boolean().optional().describe('create: replace the file if it exists. Default: that is an error.'),
  old_text: z
    .string()
    .optional()
    .describe('replace: exactly as in the file, with its whitespace, and only once in it. Enough lines to be unique.'),
  new_text: z.string().optional().describe('replace: what stands there afterwards; empty to remove old_text.'),
  replace_all: z.boolean().optional().describe('replace: every occurrence. Default: there must be exactly one.'),
  new_path: z.string().optional().describe('move: the new place; nothing may be there. Also for renaming.'),
})

/** Described to models as one flat object, since not every provider takes unions; checked as the union that it is. */
export const edit = described.superRefine((value, context) => {
  const checked = knownEdit.safeParse(value)
  for (const { path, message } of checked.error?.issues ?? []) {
    context.addIssue({ code: 'custom', path, message: `${message} (type ${value.type})` })
  }
}) as unknown as z.ZodType<Edit>
