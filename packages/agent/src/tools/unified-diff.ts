import { createTwoFilesPatch } from 'diff'

/** Texts that differ everywhere take the diff quadratic time; then only the fact is told. */
const timeoutMs = 1_000

/** One file's change as `git diff` would show it. `undefined` is no file. Ends in a line break. */
export function unifiedDiff(name: string, before: string | undefined, after: string | undefined): string {
  const from = before === undefined ? '/dev/null' : `a/${name}`
  const to = after === undefined ? '/dev/null' : `b/${name}`
  const patch = createTwoFilesPatch(from, to, before ?? '', after ?? '', undefined, undefined, {
    context: 3,
    timeout: timeoutMs,
  })
  const text = patch ?? `--- ${from}\n+++ ${to}\n[The file was rewritten.]\n`
  return text.replace(/^=+\n/, '')
}
