import type { Queryable } from '../store/database.ts'
import type { SequencePosition } from './records.ts'

/**
 * Which tables a backup has, asked of the database itself: a table that a migration adds is in without anybody thinking of it. What is left out is
 * named here, each with its reason.
 */
export const leftOut: Readonly<Record<string, string>> = {
  worker_connections: 'Sockets of servers that are not there: workers connect anew.',
  worker_channels: 'The same for workers without WebSockets.',
  worker_frames: 'What such a worker said to a channel that is not there; it says it again.',
  join_tokens: 'They are good for a day at most, and one that was used since the backup would be good again.',
  control_plane_heartbeat: 'A beat of servers that are not there; the first migration makes the row.',
  schema_migrations: 'In the manifest: the migrations are run again, and write it.',
}

export interface Table {
  name: string
  /** Without generated ones, which the database computes again. */
  columns: string[]
}

/** Of whatever somebody else's extension brings along, nothing is ours. */
const isOurs = `namespace.nspname = current_schema()
  and not exists (select from pg_depend where classid = 'pg_class'::regclass and objid = relation.oid and deptype = 'e')`

/** A table comes after those that it refers to. */
export async function listTables(db: Queryable): Promise<Table[]> {
  const { rows: tables } = await db.query<Table>(
    `select relation.relname::text as name, array_agg(attname::text order by attnum) as columns
       from pg_class relation
       join pg_namespace namespace on namespace.oid = relation.relnamespace
       join pg_attribute on attrelid = relation.oid and attnum > 0 and not attisdropped and attgenerated = ''
      where ${isOurs} and relkind in ('r', 'p') and not relispartition
      group by relation.relname order by relation.relname`,
  )
  const { rows: references } = await db.query<Reference>(
    `select child.relname::text as child, relation.relname::text as parent
       from pg_constraint
       join pg_class child on child.oid = conrelid
       join pg_class relation on relation.oid = confrelid
       join pg_namespace namespace on namespace.oid = relation.relnamespace
      where contype = 'f' and ${isOurs}`,
  )
  return inOrder(
    tables.filter(({ name }) => !Object.hasOwn(leftOut, name)),
    references,
  )
}

interface Reference {
  child: string
  parent: string
}

function inOrder(tables: Table[], references: Reference[]): Table[] {
  const ordered: Table[] = []
  const isPlaced = (name: string) => ordered.some((table) => table.name === name)
  const waiting = new Set(tables)
  while (waiting.size > 0) {
    const next = [...waiting].find(({ name }) =>
      references.every(
        // A reference to the table itself is checked when all of its rows are in.
        ({ child, parent }) =>
          child !== name || parent === name || isPlaced(parent) || !tables.some((table) => table.name === parent),
      ),
    )
    if (!next) throw new Error(`tables refer to one another in a circle: ${[...waiting].map(({ name }) => name)}`)
    waiting.delete(next)
    ordered.push(next)
  }
  return ordered
}

export async function listSequences(db: Queryable): Promise<SequencePosition[]> {
  const { rows: names } = await db.query<{ name: string }>(
    `select relation.relname::text as name
       from pg_class relation join pg_namespace namespace on namespace.oid = relation.relnamespace
      where ${isOurs} and relkind = 'S' order by relation.relname`,
  )
  const positions: SequencePosition[] = []
  for (const { name } of names) {
    const { rows } = await db.query<{ last_value: number; is_called: boolean }>(
      `select last_value, is_called from ${quoted(name)}`,
    )
    const [found] = rows
    if (found) positions.push({ name, ...found })
  }
  return positions
}

/** As PostgreSQL's `quote_ident`. */
export function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}
