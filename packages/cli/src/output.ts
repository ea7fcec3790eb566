import { ApiError, AppError, messageOf } from '@openoz/protocol'
import type { CommanderError } from 'commander'
import pc from 'picocolors'
import type { OutputFormat } from './global-options.ts'

/**
 * Everything that leaves the CLI goes through here, so that formats, colours, errors and exit codes are decided once.
 * Results go to stdout, everything that is said beside them to stderr.
 */
export interface Output {
  readonly format: OutputFormat
  /** Whether a program reads stdout: then nothing but JSON goes there. */
  readonly isJson: boolean
  /** Width of the terminal; undefined when stdout is none, which means: cut nothing. */
  readonly columns: number | undefined
  readonly colors: Colors
  write(text: string): void
  line(text?: string): void
  /** To stderr, in every format. */
  note(text: string): void
}

export type Colors = ReturnType<typeof pc.createColors>

export interface Stream {
  write(text: string): unknown
  isTTY?: boolean
  columns?: number
}

export function createOutput(
  format: OutputFormat,
  streams: { stdout: Stream; stderr: Stream; env: NodeJS.ProcessEnv },
): Output {
  const { stdout, stderr, env } = streams
  return {
    format,
    isJson: format === 'json' || format === 'ndjson',
    columns: stdout.isTTY ? stdout.columns || Number(env.COLUMNS) || 80 : undefined,
    colors: pc.createColors(mayColor(stdout, env)),
    write: (text) => void stdout.write(text),
    line: (text = '') => void stdout.write(`${text}\n`),
    note: (text) => void stderr.write(`${text}\n`),
  }
}

/** https://no-color.org: set and not empty means none. FORCE_COLOR is for recordings and tests. */
export function mayColor(stream: Stream, env: NodeJS.ProcessEnv): boolean {
  if (env.NO_COLOR) return false
  if (env.FORCE_COLOR) return env.FORCE_COLOR !== '0'
  return stream.isTTY === true && env.TERM !== 'dumb'
}

/** `json`: one compact array without a newline at its end, as the reference prints lists; `ndjson`: one object per line. */
export function printJsonList(output: Output, items: readonly unknown[]): void {
  if (output.format === 'ndjson') for (const item of items) output.line(JSON.stringify(item))
  else output.write(JSON.stringify(items))
}

export function printJson(output: Output, value: unknown): void {
  output.line(JSON.stringify(value))
}

/** The command line itself is at fault. */
const wrongUse: ReadonlySet<string> = new Set([
  'usage',
  'option_invalid',
  'flag_invalid',
  'flag_not_available',
  'share_invalid',
  'jq_invalid',
])

/** What went wrong, for people or for programs, and the exit code that it means. */
export function reportError(
  error: unknown,
  { format, debug, stderr, env }: { format: OutputFormat; debug: boolean; stderr: Stream; env: NodeJS.ProcessEnv },
): number {
  if (isCommanderError(error)) return usageExitCode(error)
  const { code, message } = describe(error)
  if (format === 'json' || format === 'ndjson') {
    stderr.write(`${JSON.stringify({ error: { code, message } })}\n`)
  } else {
    const colors = pc.createColors(mayColor(stderr, env))
    stderr.write(`${colors.red('error:')} ${message}${code === 'usage' ? '' : colors.dim(` [${code}]`)}\n`)
  }
  if (debug) stderr.write(causes(error))
  return wrongUse.has(code) ? 2 : 1
}

/** By its code, since an agent goes without loading commander. */
function isCommanderError(error: unknown): error is CommanderError {
  return error instanceof Error && 'code' in error && String(error.code).startsWith('commander.')
}

/** Commander has printed its own errors by now. Asking for help is no error; leaving out the command is. */
function usageExitCode(error: CommanderError): number {
  return error.exitCode === 0 ? 0 : 2
}

function describe(error: unknown): { code: string; message: string } {
  if (error instanceof AppError) return { code: error.code, message: error.message }
  if (error instanceof ApiError) {
    const { code, detail, issues = [] } = error.problem
    // The first of them is the sentence's own.
    const others = issues.map(({ path, message }) => `${path}: ${message}`).filter((issue) => !detail.includes(issue))
    return { code, message: [detail, ...others].join('\n  ') }
  }
  return { code: 'internal_error', message: messageOf(error) }
}

function causes(error: unknown): string {
  let text = ''
  for (let at = error; at instanceof Error; at = at.cause) text += `=> ${at.stack ?? at.message}\n`
  return text
}
