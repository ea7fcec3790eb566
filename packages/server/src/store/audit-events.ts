import { v7 as uuidv7 } from 'uuid'
import type { Tx } from './database.ts'

export interface NewAuditEvent {
  teamId: string | null
  /** `user:…`, `key:…`, `execution:…`, `link` (whoever has a signed one), `system`. */
  actor: string
  /** `noun.verb`, e.g. `run.cancel`. */
  action: string
  /** `noun:id`. */
  target: string
  data?: Record<string, unknown>
}

/** Part of the transaction that makes the change, so that there is neither without the other. */
export async function insertAuditEvent(tx: Tx, event: NewAuditEvent): Promise<void> {
  await tx.query(
    'insert into audit_events (id, team_id, actor, action, target, data) values ($1, $2, $3, $4, $5, $6)',
    [uuidv7(), event.teamId, event.actor, event.action, event.target, JSON.stringify(event.data ?? {})],
  )
}
