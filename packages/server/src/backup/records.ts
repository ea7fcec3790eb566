import { pipeline, Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { z } from 'zod'
import { incomplete, type OpenedBackup } from './backup-file.ts'

/**
 * What is inside of a backup, in this order: one manifest; for each table its name, its rows as PostgreSQL's binary COPY gives them, and how many
 * there were; one end. A record is one byte for its kind, four for its length, and then JSON or, for rows, bytes.
 */

const kinds = { manifest: 1, table: 2, rows: 3, tableEnd: 4, end: 5 } as const

const manifestSchema = z.object({
  installation_id: z.string(),
  /** Of the PostgreSQL that it was read from. */
  postgres: z.string(),
  /** Those that had made the schema. */
  migrations: z.array(z.object({ version: z.number(), name: z.string(), hash: z.string() })),
  /** In the order in which they are in the file: a table comes after those that it refers to. */
  tables: z.array(z.object({ name: z.string(), columns: z.array(z.string()) })),
})

const tableSchema = z.object({ name: z.string() })
const tableEndSchema = z.object({ rows: z.number().int() })

const endSchema = z.object({
  /** Where each sequence was: never behind the rows, since they were read before. */
  sequences: z.array(z.object({ name: z.string(), last_value: z.number(), is_called: z.boolean() })),
})

export type Manifest = z.infer<typeof manifestSchema>
export type SequencePosition = z.infer<typeof endSchema>['sequences'][number]

export type BackupRecord =
  | { kind: 'manifest'; manifest: Manifest }
  | { kind: 'table'; name: string }
  | { kind: 'rows'; bytes: Buffer }
  | { kind: 'tableEnd'; rows: number }
  | { kind: 'end'; sequences: SequencePosition[] }

export function encodeRecord(record: BackupRecord): Buffer {
  const content = record.kind === 'rows' ? record.bytes : Buffer.from(JSON.stringify(contentOf(record)))
  const start = Buffer.alloc(5)
  start.writeUInt8(kinds[record.kind])
  start.writeUInt32BE(content.length, 1)
  return Buffer.concat([start, content])
}

function contentOf(record: Exclude<BackupRecord, { kind: 'rows' }>): unknown {
  if (record.kind === 'manifest') return record.manifest
  const { kind: _, ...content } = record
  return content
}

function decodeRecord(kind: number, content: Buffer): BackupRecord | undefined {
  const json = () => JSON.parse(content.toString()) as unknown
  switch (kind) {
    case kinds.manifest:
      return { kind: 'manifest', manifest: manifestSchema.parse(json()) }
    case kinds.table:
      return { kind: 'table', ...tableSchema.parse(json()) }
    case kinds.rows:
      return { kind: 'rows', bytes: content }
    case kinds.tableEnd:
      return { kind: 'tableEnd', ...tableEndSchema.parse(json()) }
    case kinds.end:
      return { kind: 'end', ...endSchema.parse(json()) }
    default:
      return undefined
  }
}

/**
 * All records of the file, the end last. Rejects with `backup_incomplete`. Nothing that comes before the end proves that the file is whole: who is
 * about to write reads it to its end first.
 */
export async function* readRecords(
  file: string,
  backup: OpenedBackup,
  onRead?: (bytes: number) => void,
): AsyncGenerator<BackupRecord> {
  const gunzip = createGunzip({ chunkSize: 128 * 1024 })
  // What goes wrong in the frames ends this stream with the same error.
  pipeline(Readable.from(backup.plain(onRead)), gunzip, () => {})
  let pending: Buffer = Buffer.alloc(0)
  let last: BackupRecord | undefined
  for await (const bytes of gunzip as AsyncIterable<Buffer>) {
    pending = pending.length === 0 ? bytes : Buffer.concat([pending, bytes])
    while (pending.length >= 5) {
      const end = 5 + pending.readUInt32BE(1)
      if (pending.length < end) break
      last = decodeRecord(pending.readUInt8(), pending.subarray(5, end))
      if (!last) throw incomplete(file, 'it holds something that this program does not know')
      yield last
      pending = pending.subarray(end)
    }
  }
  if (pending.length > 0 || last?.kind !== 'end') throw incomplete(file, 'it ends early')
}
