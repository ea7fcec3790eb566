import { z } from 'zod'

/**
 * Who may look at a run (`view`) or also steer it (`edit`), beside those who may anyway. `self` grants nothing: it says that the run is to be
 * followed from another device.
 */
export const shareSubjects = ['self', 'team', 'public', 'user'] as const
export const shareAccesses = ['view', 'edit'] as const

export const share = z
  .strictObject({
    subject: z.enum(shareSubjects),
    /** With subject `user`, lower case. */
    email: z.string().max(320).optional(),
    access: z.enum(shareAccesses),
  })
  .meta({ id: 'Share' })
export type Share = z.infer<typeof share>
