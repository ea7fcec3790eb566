import type { AgentCommand } from '@openoz/protocol'
import type { Queryable, Tx } from './database.ts'

/** Puts a command into the inbox of an execution, once per type: a second cancel is the same cancel. */
export async function insertCommand(
  tx: Tx,
  command: { id: string; runId: string; executionId: string; type: AgentCommand['type']; payload: object },
): Promise<void> {
  await tx.query(
    `insert into commands (id, run_id, execution_id, type, payload)
     select $1, $2, $3, $4, $5
      where not exists (select from commands where execution_id = $3 and type = $4)`,
    [command.id, command.runId, command.executionId, command.type, JSON.stringify(command.payload)],
  )
}

/** Everything not yet acknowledged, in order. */
export async function listOpenCommands(db: Queryable, executionId: string): Promise<AgentCommand[]> {
  const { rows } = await db.query<AgentCommand>(
    'select id, type, payload from commands where execution_id = $1 and acked_at is null order by id',
    [executionId],
  )
  return rows
}

export async function updateCommandsAcked(db: Queryable, executionId: string, ids: string[]): Promise<void> {
  await db.query(
    'update commands set acked_at = db_now() where execution_id = $1 and id = any($2) and acked_at is null',
    [executionId, ids],
  )
}
