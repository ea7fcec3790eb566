import type { AgentCommand } from '@openoz/protocol'
import type { Queryable } from './database.ts'
import { live } from './execution-states.ts'

/** Puts a command into the inbox of an execution. `once`: not a second one of its type, such as a cancel. */
export async function insertCommand(
  tx: Queryable,
  command: {
    id: string
    runId: string
    executionId: string
    type: AgentCommand['type']
    payload: object
    once?: boolean
  },
): Promise<void> {
  await tx.query(
    `insert into commands (id, run_id, execution_id, type, payload)
     select $1, $2, $3, $4, $5
      where not ($6 and exists (select from commands where execution_id = $3 and type = $4))`,
    [
      command.id,
      command.runId,
      command.executionId,
      command.type,
      JSON.stringify(command.payload),
      command.once ?? false,
    ],
  )
}

/** Everything not yet acknowledged, in order. */
export async function listOpenCommands(db: Queryable, executionId: string): Promise<AgentCommand[]> {
  const { rows } = await db.query<AgentCommand>(
    'select id, type, payload from commands where execution_id = $1 and acked_at is null order by position',
    [executionId],
  )
  return rows
}

/** Of these executions, those that have something in their inbox, and those that are over. */
export async function listExecutionsWithNews(db: Queryable, executionIds: string[]): Promise<string[]> {
  const { rows } = await db.query<{ id: string }>(
    `select id from unnest($1::uuid[]) as open (id)
      where exists (select from commands where execution_id = open.id and acked_at is null)
         or not exists (select from executions where executions.id = open.id and state in ${live})`,
    [executionIds],
  )
  return rows.map((row) => row.id)
}

export async function updateCommandsAcked(db: Queryable, executionId: string, ids: string[]): Promise<void> {
  await db.query(
    'update commands set acked_at = db_now() where execution_id = $1 and id = any($2) and acked_at is null',
    [executionId, ids],
  )
}
