import { z } from 'zod'

/** An error as it crosses HTTP: RFC 7807, `application/problem+json`, with the reference's extensions. */
export const problem = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    instance: z.string().optional(),
    /** Platform code, what the published SDKs read. */
    error: z.string(),
    /** Code of the registry, finer than `error`. */
    code: z.string(),
    /** The same as `detail`: the SDKs take their message from here. */
    message: z.string(),
    retryable: z.boolean(),
    trace_id: z.string().optional(),
    /** Where the request did not fit, for `invalid_request`. */
    issues: z.array(z.object({ path: z.string(), message: z.string() })).optional(),
  })
  .meta({ id: 'Error' })
export type Problem = z.infer<typeof problem>
