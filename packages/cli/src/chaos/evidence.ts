import { readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Database } from '@openoz/server'
import type { ModelSeen } from './model.ts'
import { listOwnProcesses, type OwnProcess } from './own-processes.ts'
import type { Accepted, People, Refused } from './people.ts'
import type { RoundPlan } from './plan.ts'
import { ledgerFile, type RoundFolder } from './round-folder.ts'
import type { Stack } from './stack.ts'
import type { Crash } from './supervised-process.ts'
import { eventHash, type SeenEvent } from './viewer.ts'

/** Everything that the checks judge, as plain data: a round can be judged again from it, and tests can plant damage in it. */
export interface Evidence {
  plan: RoundPlan
  accepted: Accepted[]
  refused: Refused[]
  views: { viewer: string; runId: string; seen: SeenEvent[] }[]
  model: ModelSeen[]
  ledger: LedgerEntry[]
  runs: RunRow[]
  turns: TurnRow[]
  messages: { id: string; run_id: string; is_open: boolean }[]
  executions: ExecutionRow[]
  events: EventRow[]
  logs: { run_id: string; last_seq: number }[]
  checkpoints: { run_id: string; execution_id: string; seq: number; step: number }[]
  leftOver: LeftOver[]
  crashes: Crash[]
  /** Programs that had to be killed at the end. */
  impolite: string[]
}

export interface RunRow {
  id: string
  state: string
  fence: number
  failure_reason: string | null
  status_message: string | null
}

export interface TurnRow {
  id: string
  run_id: string
  number: number
  message: string
  outcome: string | null
  outcome_message: string | null
}

/** Times in seconds of the machine's clock. */
export interface ExecutionRow {
  id: string
  run_id: string
  number: number
  state: string
  worker_id: string
  created_at: number
  hello_at: number | null
  ended_at: number | null
  failure_reason: string | null
  outcome: string | null
  acked_n: number
}

export interface EventRow {
  run_id: string
  seq: number
  n: number | null
  execution_id: string | null
  type: string
  hash: string
  /** Of a `run_state` that is no late evidence. */
  state: string | null
  failure_reason: string | null
}

/** One line of what the commands of a run did. */
export interface LedgerEntry {
  run: number
  executionId: string
  turn: number
  step: number
  attempt: number
  kind: string
  what: string
  /** Seconds, on the clock of the rows; 0 where the machine does not tell. */
  at: number
  /** At the beginning of a step: the files of earlier ones that it found. */
  files: string[]
}

export interface LeftOver {
  what: 'process' | 'file' | 'row' | 'container' | 'volume' | 'network'
  name: string
}

export async function collectEvidence(input: {
  plan: RoundPlan
  folder: RoundFolder
  people: People
  stack: Stack
  model: readonly ModelSeen[]
  db: Database
  leftOver: LeftOver[]
}): Promise<Evidence> {
  const { plan, folder, people, stack, model, db, leftOver } = input
  const rows = async <Row extends object>(text: string) => (await db.query<Row>(text)).rows
  const events = await rows<Omit<EventRow, 'hash'> & { data: unknown }>(
    `select run_id, seq, n, execution_id, type, data,
            case when type = 'run_state' and data->>'late' is null then data->>'state' end as state,
            data->>'failure_reason' as failure_reason
       from session_events order by run_id, seq`,
  )
  return {
    plan,
    accepted: [...people.accepted],
    refused: [...people.refused],
    views: people.viewers.map(({ name, runId, seen }) => ({ viewer: name, runId, seen: [...seen] })),
    model: [...model],
    ledger: readLedger(folder, plan),
    runs: await rows('select id, state, fence, failure_reason, status_message from runs order by id'),
    turns: await rows(
      'select id, run_id, number, message, outcome, outcome_message from turns order by run_id, number',
    ),
    messages: await rows('select id, run_id, taken_at is null as is_open from messages'),
    executions: await rows(
      `select id, run_id, number, state, worker_id, failure_reason, outcome, acked_n,
              extract(epoch from created_at)::float8 as created_at, extract(epoch from hello_at)::float8 as hello_at,
              extract(epoch from ended_at)::float8 as ended_at
         from executions order by run_id, number`,
    ),
    events: events.map(({ data, ...event }) => ({ ...event, hash: eventHash({ type: event.type, data }) })),
    logs: await rows('select run_id, last_seq from session_logs'),
    // From the log: the table holds the newest one alone.
    checkpoints: await rows(
      `select run_id, execution_id, seq, (data->>'step')::int as step from session_events
        where type = 'checkpoint' and data->>'late' is null order by run_id, seq`,
    ),
    leftOver,
    crashes: [
      ...[...stack.servers, ...stack.workers].flatMap(({ crashes }) => crashes),
      ...(stack.engine?.own?.crashes ?? []),
    ],
    impolite: [],
  }
}

function readLedger(folder: RoundFolder, plan: RoundPlan): LedgerEntry[] {
  const bootedAt = bootTime()
  return plan.runs.flatMap(({ index }) => {
    const lines = readFileSync(ledgerFile(folder, index), 'utf8').split('\n')
    return lines.filter((line) => line !== '').map((line) => ledgerEntry(index, line, bootedAt))
  })
}

function ledgerEntry(run: number, line: string, bootedAt: number): LedgerEntry {
  const [executionId = '', turn, step, attempt, kind = '', what = '', uptime, files = ''] = line.split(' ')
  return {
    run,
    executionId,
    turn: Number(turn),
    step: Number(step),
    attempt: Number(attempt),
    kind,
    what,
    at: bootedAt === 0 ? 0 : bootedAt + Number(uptime),
    files: files.split(',').filter((name) => name !== ''),
  }
}

function bootTime(): number {
  if (process.platform !== 'linux') return 0
  return Date.now() / 1000 - Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0])
}

/** What is still there of runs that are over, while servers and database live and workers do not. */
export async function listLeftOvers({
  folder,
  stack,
  db,
}: {
  folder: RoundFolder
  stack: Stack
  db: Database
}): Promise<LeftOver[]> {
  const onEngine = (await stack.engine?.listLeft()) ?? []
  return [
    ...leftProcesses(folder, stack),
    ...leftFiles(folder, stack),
    ...(await leftRows(db)),
    ...onEngine.map(({ what, name }) => ({ what, name })),
  ]
}

function leftProcesses(folder: RoundFolder, stack: Stack): LeftOver[] {
  const servers = new Set(stack.servers.map(({ identity }) => identity?.pid))
  return listOwnProcesses(folder)
    .filter((own) => !servers.has(own.pid) && !isDatabase(own.argv) && !isOfEngine(own, folder))
    .map(({ pid, argv }) => ({ what: 'process', name: `${pid}: ${argv.join(' ').slice(0, 200)}` }))
}

/** It runs on until the evidence is collected; a child of it that is quite new still wears its command line. */
function isDatabase([program = '']: string[]): boolean {
  return basename(program) === 'postgres'
}

/**
 * An engine that is killed while it starts a container forgets the shim of that, which stays as long as the engine. Containers are asked for by the engine's
 * list, and what runs in them is found by the marker that it has.
 */
export function isOfEngine({ argv }: Pick<OwnProcess, 'argv'>, { engine }: Pick<RoundFolder, 'engine'>): boolean {
  return argv.some((word) => word.includes(`${engine}/`))
}

/** What workers keep for a task. */
const ownedFolders = ['tasks', 'workspaces', 'users', 'saved-workspaces', 'relay']

function leftFiles(folder: RoundFolder, stack: Stack): LeftOver[] {
  const owned = stack.stateDirs.flatMap((dir) => ownedFolders.map((name) => join(dir, name)))
  return [...owned, folder.temporary].flatMap((dir) =>
    filesIn(dir).map((name) => ({ what: 'file', name: join(dir, name) }) as const),
  )
}

function filesIn(dir: string): string[] {
  return statSync(dir, { throwIfNoEntry: false })?.isDirectory() ? readdirSync(dir) : []
}

const leftRowQueries: Record<string, string> = {
  'a connection of a worker': 'select count(*)::int as count from worker_connections',
  'a channel of a worker': 'select count(*)::int as count from worker_channels',
  'a frame of a worker': 'select count(*)::int as count from worker_frames',
  'an execution that is live':
    "select count(*)::int as count from executions where state in ('offered', 'claimed', 'running', 'idle')",
  'a blob that was never finished': "select count(*)::int as count from blobs where sha256 = ''",
}

async function leftRows(db: Database): Promise<LeftOver[]> {
  const found: LeftOver[] = []
  for (const [name, text] of Object.entries(leftRowQueries)) {
    const count = (await db.query<{ count: number }>(text)).rows[0]?.count ?? 0
    if (count > 0) found.push({ what: 'row', name: `${count} × ${name}` })
  }
  return found
}
