import { z } from 'zod'

/** Whose something is: everybody's in the team, or one person's alone. */
export const scope = z.object({ type: z.enum(['User', 'Team']), uid: z.string() }).meta({ id: 'Scope' })
export type Scope = z.infer<typeof scope>
