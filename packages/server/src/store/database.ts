import { AppError, databaseAwayCodes } from '@openoz/protocol'
import pg from 'pg'
import { createStatementNames, isNameFailure } from './statement-names.ts'

/**
 * The pool and transactions. Everything that store functions need is `query`, so they take a `Queryable`: the pool or a transaction.
 * Statements are text that can be pasted into psql.
 */
export interface Queryable {
  /**
   * With values, a connection keeps the statement and its plan (`statement-names.ts`). `planned each time`: for texts that are composed for each
   * call, and where the values decide what a good plan is.
   */
  query<Row extends pg.QueryResultRow>(
    text: string,
    values?: unknown[],
    how?: 'planned each time',
  ): Promise<pg.QueryResult<Row>>
}

/** A transaction; store functions that must not run outside of one ask for it by this type. */
export interface Tx extends Queryable {
  readonly isTransaction: true
}

export interface Database extends Queryable {
  /** Commits what `work` did, or rolls back when it rejects. Serialisation failures, deadlocks and outdated plans are tried again, so `work` may run twice. */
  transaction<T>(work: (tx: Tx) => Promise<T>): Promise<T>
  /** A connection of its own, outside the pool, for LISTEN. The caller ends it. */
  connectAlone(): Promise<pg.Client>
  close(): Promise<void>
}

// bigint columns are counters far below 2^53: numbers are easier to live with than strings.
pg.types.setTypeParser(pg.types.builtins.INT8, Number)

const maxAttempts = 5

/** It could not be put in an order with others, or each waited for the other; or what the connection keeps of the statement is of no use. */
function isRetryable(error: unknown): boolean {
  return ['40001', '40P01'].includes((error as pg.DatabaseError).code ?? '') || isNameFailure(error)
}

/** Far above what any rule takes between two statements: a server that hangs may not hold its locks for ever, since others wait for them. */
const defaultIdleTransactionMs = 60_000

export interface DatabaseOptions {
  idleTransactionMs?: number
  /** A pooler in between cannot keep statements for a connection: from now on they are parsed and planned at every execution. */
  onUnprepared?: (error: Error) => void
  /** What to say instead of how a connection failed, where somebody knows why: PostgreSQL is ours, and could not be started. */
  whyAway?: () => AppError
}

export function openDatabase(
  config: pg.PoolConfig,
  onError: (error: Error) => void,
  { idleTransactionMs = defaultIdleTransactionMs, onUnprepared, whyAway }: DatabaseOptions = {},
): Database {
  // 10 connections: more only makes two cores switch; node waits for the disk, not for a free connection.
  const pool = new pg.Pool({ max: 10, connectionTimeoutMillis: 10_000, application_name: 'openoz', ...config })
  // A database that stops breaks idle connections; unhandled, that would end the process.
  pool.on('error', onError)

  const explain = (error: unknown) =>
    whyAway && isDatabaseAway(error) ? Object.assign(whyAway(), { cause: error }) : error

  const names = createStatementNames(onUnprepared)
  async function run<Row extends pg.QueryResultRow>(
    on: Pick<pg.ClientBase, 'query'>,
    ...[text, values, how]: Parameters<Queryable['query']>
  ): Promise<pg.QueryResult<Row>> {
    const name = values === undefined || how === 'planned each time' ? undefined : names.nameOf(text)
    if (name === undefined) return on.query<Row>(text, values)
    try {
      return await on.query<Row>({ name, text, values })
    } catch (error) {
      names.noteFailure(name, error)
      throw error
    }
  }

  return {
    async query<Row extends pg.QueryResultRow>(...statement: Parameters<Queryable['query']>) {
      for (let attempt = 1; ; attempt++) {
        try {
          return await run<Row>(pool, ...statement)
        } catch (error) {
          // A statement on its own was a transaction on its own: nothing of it is kept.
          if (attempt >= maxAttempts || !isRetryable(error)) throw explain(error)
        }
      }
    },
    async transaction(work) {
      for (let attempt = 1; ; attempt++) {
        const client = await pool.connect().catch((error: unknown) => {
          throw explain(error)
        })
        let broken: Error | undefined
        // Between two statements nobody else listens, and an error that nobody hears ends the process.
        const onBroken = (error: Error) => {
          broken = error
        }
        client.on('error', onBroken)
        try {
          // Together: no round trip more. Not for the session, whose settings a pooler in between would refuse.
          await client.query(`begin; set local idle_in_transaction_session_timeout = ${idleTransactionMs}`)
          const result = await work({ isTransaction: true, query: (...statement) => run(client, ...statement) })
          await client.query('commit')
          return result
        } catch (error) {
          await client.query('rollback').catch((rollbackError: Error) => {
            broken = rollbackError
          })
          if (attempt >= maxAttempts || !isRetryable(error)) throw explain(error)
        } finally {
          client.off('error', onBroken)
          client.release(broken)
        }
      }
    },
    async connectAlone() {
      const client = new pg.Client({ application_name: 'openoz hints', ...config })
      await client.connect()
      return client
    },
    close: () => pool.end(),
  }
}

/** No answer from its host, as Node names it; and PostgreSQL has no connection left for us. */
const networkCodes = new Set([
  ...['ECONNREFUSED', 'ECONNRESET', 'ENOENT', 'EPIPE', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH'],
  ...['ENOTFOUND', 'EAI_AGAIN', '53300'],
])

/** A value of the caller's that no column takes: a NUL in a text, a date that does not exist. */
export function isValueRefused(error: unknown): boolean {
  const { code } = error as { code?: string }
  return ['22003', '22007', '22008', '22009', '22021', '22P02', '22P05'].includes(code ?? '')
}

/** Whether what was to be written does not fit the columns, their constraints or their indexes: tried again, it would not fit again. */
export function isDataRefused(error: unknown): boolean {
  return /^(2[23]|54)/.test((error as { code?: string }).code ?? '')
}

/** Work inside of a transaction of which nothing is kept when it rejects; the transaction itself goes on. */
export async function withSavepoint<T>(tx: Tx, work: () => Promise<T>): Promise<T> {
  await tx.query('savepoint attempt')
  try {
    const result = await work()
    await tx.query('release savepoint attempt')
    return result
  } catch (error) {
    // Should this fail too, so does the transaction; the first error says why.
    await tx.query('rollback to savepoint attempt').catch(() => {})
    throw error
  }
}

/** Whether the statement failed because the database was away, not because it was wrong: the same request may succeed later. */
export function isDatabaseAway(error: unknown): boolean {
  const { code, message } = error as { code?: string; message?: string }
  if (error instanceof AppError) return databaseAwayCodes.some((away) => away === error.code)
  if (code?.startsWith('08') || code?.startsWith('57P')) return true
  if (networkCodes.has(code ?? '')) return true
  return /Connection terminated|timeout exceeded when trying to connect|Client has encountered a connection error/.test(
    message ?? '',
  )
}

/** Its disk has no room: reading goes on, and writing does once there is some again. */
export function isDatabaseFull(error: unknown): boolean {
  return (error as { code?: string }).code === '53100'
}

/** Whether a table or a column is missing: a control plane has yet to bring the schema up to date. */
export function isNotMigrated(error: unknown): boolean {
  const { code } = error as { code?: string }
  return code === '42P01' || code === '42703'
}

/** Resolves to why the database does not answer; to nothing where it does. */
export async function whyUnreachable(db: Database): Promise<unknown> {
  try {
    await db.query('select 1')
    return undefined
  } catch (error) {
    return error
  }
}

export function databaseUnreachable(error: unknown): AppError {
  if (error instanceof AppError) return error
  return new AppError('database_unreachable', { problem: (error as Error).message || 'no answer' }, { cause: error })
}

/** For operators, where `onUnprepared` was called. */
export const unpreparedNotice =
  'the pooler in front of the database keeps no prepared statements: each is planned at every execution, which costs the database twice as much'
