import { z } from 'zod'
import { cloudEnvironmentConfig } from './agent-config.ts'
import { runStates } from './run-state.ts'
import { scope } from './scope.ts'
import { timestamp } from './timestamps.ts'

const person = z.object({ type: z.string(), uid: z.string(), display_name: z.string(), email: z.string().optional() })

/** A config for runs with a name and an id of its own. A run takes a copy at its start: later changes do not reach it. */
export const cloudEnvironment = z
  .object({
    uid: z.uuid(),
    config: cloudEnvironmentConfig,
    last_updated: timestamp,
    setup_failed: z.boolean().describe('The last run that prepared it failed at that.'),
    creator: person.optional(),
    last_editor: person.optional(),
    last_task_created: z
      .object({
        id: z.uuid(),
        title: z.string(),
        state: z.enum(runStates),
        created_at: timestamp,
        updated_at: timestamp,
        started_at: timestamp.nullable(),
      })
      .optional(),
    last_task_run_timestamp: timestamp.nullable(),
    scope,
  })
  .meta({ id: 'CloudEnvironment' })
export type CloudEnvironment = z.infer<typeof cloudEnvironment>

/** The config itself is the body. `team: false` makes a personal one; a team's key always makes team ones. Default: true. */
export const createEnvironmentRequest = cloudEnvironmentConfig
  .extend({ team: z.boolean().optional() })
  .meta({ id: 'CreateEnvironmentRequest' })
export type CreateEnvironmentRequest = z.infer<typeof createEnvironmentRequest>

export const listEnvironmentsQuery = z.strictObject({
  sort_by: z.enum(['name', 'last_updated']).default('last_updated'),
})
export type ListEnvironmentsQuery = z.infer<typeof listEnvironmentsQuery>

export const listEnvironmentsResponse = z
  .object({ environments: z.array(cloudEnvironment) })
  .meta({ id: 'ListEnvironmentsResponse' })

export const deleteEnvironmentResponse = z
  .object({ uid: z.uuid(), deleted: z.literal(true) })
  .meta({ id: 'DeleteEnvironmentResponse' })
