import { z } from 'zod'

/** Yes or no in a query, as clients of the reference write it. */
export const queryFlag = z
  .enum(['true', 'false'])
  .transform((text) => text === 'true')
  .optional()
