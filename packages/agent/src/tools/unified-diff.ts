import { createTwoFilesPatch } from 'diff'

/**
 * One file's change as `git diff` would show it. `undefined` is no file. Ends in a line break. Texts that differ everywhere take quadratic time:
 * after `timeoutMs` only the fact is told.
 */
export function unifiedDiff(
  name: string,
  { before, after }: { before: string | undefined; after: string | undefined },
  timeoutMs: number,
): string {
  const from = before === undefined ? '/dev/null' : `a/${name}`
  const to = after === undefined ? '/dev/null' : `b/${name}`
  const header = `--- ${from}\n+++ ${to}\n`
  if (timeoutMs <= 0) return `${header}[The file was changed.]\n`
  const patch = createTwoFilesPatch(from, to, before ?? '', after ?? '', undefined, undefined, {
    context: 3,
    timeout: timeoutMs,
  })
  return (patch ?? `${header}[The file was rewritten.]\n`).replace(/^=+\n/, '')
}
