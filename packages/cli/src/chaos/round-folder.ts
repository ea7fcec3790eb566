import { randomBytes, randomUUID } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/**
 * Everything of a round on disk:
 *
 *   <temporary folder>/oz-chaos-XXXXXX/
 *     marker        what the environment of everything that the round starts carries
 *     logs/         of servers, workers and agents; what was done to whom
 *     ledger/       what the commands of each run did, in the order in which they did it; the tasks' users may write there
 *     machine/      database, servers, workers, programs: nobody but the round has anything to do in there
 *
 * By the name of `machine` in their command line, or the marker in their environment, the round knows its processes: also a daemon that has
 * left everything behind.
 */
export interface RoundFolder {
  path: string
  marker: string
  logs: string
  ledger: string
  machine: string
  /** Where the programs make their temporary files. */
  temporary: string
  /** Where the workers keep their state. */
  stateDirs: string[]
  /** Of the engine, where the round has one of its own. */
  engine: string
  /** Names the engine that has containers of the round, where that is somebody else's. */
  engineFile: string
  /** The program that agents run as their commands. */
  effect: string
  masterKey: string
}

export const markerVariable = 'CHAOS_ROUND'

export function createRoundFolder(): RoundFolder {
  const path = mkdtempSync(join(tmpdir(), 'oz-chaos-'))
  const folder = layout(path, randomUUID())
  // Tasks of root's workers have users of their own, and so has root's PostgreSQL: they must be able to pass.
  for (const made of [path, folder.logs, folder.ledger, folder.machine]) {
    if (made !== path) mkdirSync(made)
    chmodSync(made, 0o755)
  }
  chmodSync(folder.logs, 0o700)
  mkdirSync(folder.temporary)
  chmodSync(folder.temporary, 0o1777)
  writeFileSync(join(path, 'marker'), folder.marker, { mode: 0o600 })
  writeFileSync(folder.masterKey, `${randomBytes(32).toString('base64')}\n`, { mode: 0o600 })
  writeFileSync(folder.effect, effectProgram, { mode: 0o755 })
  chmodSync(folder.effect, 0o755)
  return folder
}

/** Of a round that another process has begun; undefined when it is none. */
export function openRoundFolder(path: string): RoundFolder | undefined {
  const file = join(path, 'marker')
  return existsSync(file) ? layout(path, readFileSync(file, 'utf8')) : undefined
}

export function removeRoundFolder({ path }: RoundFolder): void {
  rmSync(path, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
}

/** The commands of every run, in one file that each of its users may add to. */
export function ledgerFile(folder: Pick<RoundFolder, 'ledger'>, index: number): string {
  return join(folder.ledger, String(index))
}

export function createLedger(folder: RoundFolder, index: number): void {
  const file = ledgerFile(folder, index)
  writeFileSync(file, '')
  chmodSync(file, 0o666)
}

function layout(path: string, marker: string): RoundFolder {
  const machine = join(path, 'machine')
  return {
    path,
    marker,
    logs: join(path, 'logs'),
    ledger: join(path, 'ledger'),
    machine,
    temporary: join(machine, 'tmp'),
    stateDirs: ['state', 'state-shared'].map((name) => join(machine, name)),
    engine: join(machine, 'engine'),
    engineFile: join(machine, 'engine.json'),
    effect: join(machine, 'effect.sh'),
    masterKey: join(machine, 'master.key'),
  }
}

/**
 * A line is one write at the end of the file, so the lines of all processes of this machine stand in the order in which they were written:
 * no clock is needed to tell who was first. What lives long looks whether the round is still there.
 */
const effectProgram = `# LEDGER EXECUTION TURN STEP ATTEMPT KIND
ledger=$1 execution=$2 turn=$3 step=$4 attempt=$5 kind=$6
say() {
  [ -f "$ledger" ] || exit 0
  up=0
  { read -r up rest </proc/uptime; } 2>/dev/null
  printf '%s\\n' "$execution $turn $step $attempt $kind $1 $up \${2:-}" >>"$ledger"
}
beats() {
  count=0
  while [ "$count" -lt "$1" ]; do
    sleep "$2"
    say beat
    count=$((count + 1))
  done
}
say begin "$(ls 2>/dev/null | grep '^chaos-' | tr '\\n' ,)"
code=0
case $kind in
  beat) beats 4 0.25 ;;
  write)
    echo "turn $turn step $step" >"chaos-$turn-$step"
    beats 2 0.25 ;;
  long) beats 16 0.5 ;;
  fail)
    beats 1 0.25
    code=3 ;;
  *) beats 1200 0.5 ;;
esac
say done
exit $code
`
