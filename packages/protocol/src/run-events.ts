import { z } from 'zod'
import { queryFlag } from './query-flag.ts'
import { timestamp } from './timestamps.ts'

/**
 * The reference's events over many runs, in one global order: what somebody who coordinates runs waits for. The session log of one run is
 * another thing (`events.ts`).
 */
export const reportedEventTypes = [
  'run_in_progress',
  'run_succeeded',
  'run_failed',
  'run_errored',
  'run_blocked',
  'run_cancelled',
] as const
export const runEventTypes = [...reportedEventTypes, 'new_message'] as const
export type RunEventType = (typeof runEventTypes)[number]

export const runEvent = z
  .object({
    event_type: z.enum(runEventTypes),
    run_id: z.uuid(),
    /** Of `new_message`: the message's id. */
    ref_id: z.string().nullable(),
    execution_id: z.uuid().nullable(),
    occurred_at: timestamp,
    /** Ascending over all runs, with holes. */
    sequence: z.int(),
  })
  .meta({ id: 'RunEvent' })
export type RunEvent = z.infer<typeof runEvent>

export const reportEventRequest = z
  .strictObject({
    event_type: z.enum(reportedEventTypes),
    execution_id: z.uuid().optional(),
    ref_id: z.string().max(255).optional(),
  })
  .meta({ id: 'ReportRunEventRequest' })
export type ReportEventRequest = z.infer<typeof reportEventRequest>

const since = z.coerce.number().int().min(0).max(Number.MAX_SAFE_INTEGER).default(0)

/** Repeated, in either spelling; a single one may come as text. */
const runIds = z.preprocess(
  (value) => (value === undefined || Array.isArray(value) ? value : [value]),
  z.array(z.uuid()).max(500).optional(),
)

export const pollRunEventsQuery = z
  .strictObject({
    /** What of these the caller may not see is left out. */
    run_ids: runIds,
    'run_ids[]': runIds,
    since,
    limit: z.coerce.number().int().min(1).max(500).default(100),
  })
  .refine((query) => query.run_ids ?? query['run_ids[]'], { message: 'name at least one run', path: ['run_ids'] })

/** Either runs, or all below one. */
export const streamRunEventsQuery = z
  .strictObject({
    run_ids: runIds,
    'run_ids[]': runIds,
    ancestor_run_id: z.uuid().optional(),
    include_self: queryFlag,
    since,
  })
  .refine((query) => ((query.run_ids ?? query['run_ids[]']) === undefined) !== (query.ancestor_run_id === undefined), {
    message: 'name either runs or an ancestor_run_id',
    path: ['run_ids'],
  })

export const pollRunEventsResponse = z.array(runEvent)

export const reportEventResponse = z.object({ sequence: z.int() }).meta({ id: 'ReportRunEventResponse' })
