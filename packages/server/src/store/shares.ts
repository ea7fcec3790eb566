import type { Share } from '@openoz/protocol'
import type { Tx } from './database.ts'

/** Grants of one run, each subject once. */
export async function insertShares(tx: Tx, runId: string, shares: readonly Share[]): Promise<void> {
  if (shares.length === 0) return
  await tx.query(
    `insert into run_shares (run_id, subject, email, access)
     select $1, subject, coalesce(email, ''), access
       from jsonb_to_recordset($2::jsonb) as share (subject text, email text, access text)`,
    [runId, JSON.stringify(shares)],
  )
}
