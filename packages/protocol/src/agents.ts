import { z } from 'zod'
import { queryFlag } from './query-flag.ts'
import { timestamp } from './timestamps.ts'

/** `GET agent`: the skills (`SKILL.md`) of the repositories that runs have cloned. */
export const listAgentsQuery = z.strictObject({
  /** `owner/name`. Default: every repository. */
  repo: z.string().max(512).optional(),
  /** Taken for the reference's sake: skills are read whenever a run clones their repository. */
  refresh: z.enum(['true', 'false']).optional(),
  sort_by: z.enum(['name', 'last_run']).default('name'),
  include_malformed_skills: queryFlag,
})
export type ListAgentsQuery = z.infer<typeof listAgentsQuery>

export const listAgentsResponse = z
  .object({
    agents: z.array(
      z.object({
        name: z.string(),
        variants: z.array(
          z.object({
            id: z.string(),
            description: z.string(),
            base_prompt: z.string(),
            source: z.object({
              owner: z.string(),
              name: z.string(),
              skill_path: z.string(),
              worker_host: z.string().optional(),
            }),
            environments: z.array(z.object({ uid: z.string(), name: z.string() })),
            error: z.string().optional(),
            last_run_timestamp: timestamp.optional(),
          }),
        ),
      }),
    ),
  })
  .meta({ id: 'ListAgentsResponse' })
export type ListAgentsResponse = z.infer<typeof listAgentsResponse>
