import { constants } from 'node:os'
import type { CommandEnd } from './command-run.ts'

/** As shells report it. */
export function exitCode({ code, signal }: CommandEnd): number {
  return code ?? 128 + (signal ? constants.signals[signal] : 0)
}

/** Without a full stop. */
export function endInWords(end: CommandEnd): string {
  if (end.isTimedOut) return 'ended, because its time was over'
  return end.signal ? `ended by ${end.signal}` : `ended with exit code ${exitCode(end)}`
}

/** The first line of a command, for titles and lists. */
export function commandLine({ command }: { command: string }, maxLength = 160): string {
  const [line = ''] = command.trim().split('\n')
  return line.length > maxLength || line !== command.trim() ? `${line.slice(0, maxLength)}…` : line
}
