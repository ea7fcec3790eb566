import { problemOf, readLogEntry } from '@openoz/machine'
import { readTail } from '../task-folder.ts'

const tailBytes = 8 * 1024
const maxLines = 12
const maxCharacters = 2_000

/** pino's; what is below tells of work that went well, which explains no end. */
const warnLevel = 40

/**
 * The end of an agent's log as a person reads it: warnings and errors as sentences, what other programs wrote as it is. Lines of a log that
 * cannot be read, or that say nothing, are left out; what else a line holds beside its message is never shown.
 *
 * `mask` sees the whole text before lines are taken apart, while a secret of several lines still has a form that is known.
 */
export async function readLastWords(file: string, mask: (text: string) => string): Promise<string> {
  const text = await readTail(file, tailBytes)
  // Cut off at its beginning, a line is neither JSON nor is a secret in it known by its form.
  const whole = Buffer.byteLength(text) < tailBytes ? text : text.replace(/^.*(\n|$)/, '')
  const lines = mask(whole)
    .split('\n')
    .map((line) => (line.trimStart().startsWith('{') ? sentenceOf(line) : line.trimEnd()))
  // What is tried again and again is said once.
  const said = lines.filter((line, index) => line !== '' && line !== lines[index - 1])
  return said.slice(-maxLines).join('\n').slice(-maxCharacters).trim()
}

function sentenceOf(line: string): string {
  const entry = readLogEntry(line)
  if (typeof entry?.msg !== 'string' || (typeof entry.level === 'number' && entry.level < warnLevel)) return ''
  const problem = problemOf(entry.err ?? entry.error)
  const words = problem === '' ? entry.msg : `${entry.msg.replace(/\.$/, '')}: ${problem}`
  const text = words.replace(/\s+/g, ' ').trim()
  if (text === '') return ''
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? '' : '.'}`
}
