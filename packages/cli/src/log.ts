import { fstatSync } from 'node:fs'
import { problemOf, readLogEntry } from '@openoz/machine'
import pc from 'picocolors'
import { type DestinationStream, type Logger, pino } from 'pino'
import { type Colors, mayColor } from './output.ts'
import { oneLine } from './plain-text.ts'

/**
 * Logs go to stderr: JSON for collectors, one short line each for a person who looks at a terminal. In systemd's journal each line also has its
 * priority, so that `journalctl -p warning` finds what it should.
 */
export function createLogger(options: {
  name: string
  level: string
  env: NodeJS.ProcessEnv
  /** Default: whether stderr is a terminal. */
  isForPeople?: boolean
}): Logger {
  const { name, level, env, isForPeople = process.stderr.isTTY } = options
  const destination = isForPeople
    ? prettyDestination((text) => process.stderr.write(text), pc.createColors(mayColor(process.stderr, env)))
    : jsonDestination(env)
  const serializers = { err: loggedError, error: loggedError }
  return pino({ name, level, base: { name }, serializers }, destination)
}

/**
 * What a log may hold of an error. Not everything that it carries: a database error's `detail` quotes rows, and so prompts; an AI SDK's
 * error holds the whole request.
 */
export function loggedError(error: unknown): unknown {
  if (!(error instanceof Error)) return error
  const { code } = error as { code?: unknown }
  return {
    type: error.name,
    message: error.message,
    ...(typeof code === 'string' ? { code } : {}),
    stack: error.stack,
    ...(error.cause instanceof Error ? { cause: loggedError(error.cause) } : {}),
  }
}

function jsonDestination(env: NodeJS.ProcessEnv): DestinationStream {
  const stderr = pino.destination({ fd: 2, sync: true })
  return isJournal(env) ? { write: (line) => void stderr.write(journalLine(line)) } : stderr
}

/** systemd names the stream that leads to its journal; children inherit the name, but not always the stream. */
function isJournal({ JOURNAL_STREAM }: NodeJS.ProcessEnv): boolean {
  if (!JOURNAL_STREAM) return false
  const { dev, ino } = fstatSync(2, { bigint: true })
  return JOURNAL_STREAM === `${dev}:${ino}`
}

/** The journal takes `<4>` away and stores it as the priority: error, warning, info or debug, as in syslog. */
export function journalLine(line: string): string {
  const level = Number(/^\{"level":(\d+)/.exec(line)?.[1] ?? 30)
  const priority = level >= 50 ? 3 : level >= 40 ? 4 : level >= 30 ? 6 : 7
  return `<${priority}>${line}`
}

function prettyDestination(write: (text: string) => void, colors: Colors): DestinationStream {
  return { write: (line) => write(`${prettyLine(line, colors)}\n`) }
}

/** What every line has, and what is shown in another form. */
const knownFields = new Set(['level', 'time', 'msg', 'name', 'pid', 'hostname', 'err', 'error'])

/** `12:03:51 worker connected workerId=laptop`; warnings yellow, errors red. */
export function prettyLine(line: string, colors: Colors): string {
  const entry = readLogEntry(line)
  if (!entry) return line.trimEnd()
  const problem = problemOf(entry.err ?? entry.error)
  const message = oneLine(`${entry.msg ?? ''}${problem === '' ? '' : `: ${problem}`}`)
  const fields = Object.entries(entry)
    .filter(([name]) => !knownFields.has(name))
    .map(([name, value]) => oneLine(`${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`))
  const level = Number(entry.level)
  const paint = level >= 50 ? colors.red : level >= 40 ? colors.yellow : level <= 20 ? colors.dim : String
  const time = new Date(Number(entry.time)).toTimeString().slice(0, 8)
  return [colors.dim(`${time} ${entry.name}`), paint(message), colors.dim(fields.join(' '))].filter(Boolean).join(' ')
}
