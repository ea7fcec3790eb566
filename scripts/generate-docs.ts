/**
 * Writes what the documentation takes from the code: the blocks between `<!-- begin generated: NAME -->` and `<!-- end generated: NAME -->`
 * in the pages below. The rest of a page is written by hand and stays as it is.
 *
 *   npx node scripts/generate-docs.ts
 *
 * `test/completeness/generated-docs.test.ts` fails when a page differs from what this would write.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { errorSpecs, failureReasons, failureSpec, ownFailureReasons } from '../packages/protocol/src/index.ts'
import { operatorErrors } from '../packages/protocol/src/operator-errors.ts'
import { requestErrors } from '../packages/protocol/src/request-errors.ts'
import { runErrors } from '../packages/protocol/src/run-errors.ts'
import { type Trouble, troubleAreas, troubles } from '../packages/protocol/src/troubleshooting.ts'
import { type ServerFlag, serverFlags } from '../packages/server/src/config.ts'
import { permissions } from '../packages/server/src/domain/permissions.ts'
import { availableBackendNames } from '../packages/worker/src/backends/backend.ts'
import { workerFlags } from '../packages/worker/src/worker-flags.ts'
import { type ConformanceCase, conformanceCases } from '../test/conformance/cases.ts'

export const repositoryRoot = new URL('../', import.meta.url)

type ErrorEntry = (typeof errorSpecs)[keyof typeof errorSpecs]

const blocks: Record<string, Record<string, () => string>> = {
  'docs/errors.md': {
    'request errors': () => errorSections(requestErrors),
    'run errors': () => errorSections(runErrors),
    'operator errors': () => errorSections(operatorErrors),
    'failure reasons': () => failureReasonTable(failureReasons),
    'own failure reasons': () => failureReasonTable(ownFailureReasons),
  },
  'docs/configuration.md': { 'server options': serverOptionTable, 'worker options': workerOptionTable },
  'docs/troubleshooting.md': { troubles: troubleSections },
  'docs/security.md': { permissions: permissionTable },
  'docs/backends.md': { conformance: conformanceTable },
}

/** Path below the repository → whole content, as it should be. Throws when a page lacks a block. */
export async function renderPages(): Promise<Map<string, string>> {
  const pages = new Map<string, string>()
  for (const [path, pageBlocks] of Object.entries(blocks)) {
    let page = await readFile(new URL(path, repositoryRoot), 'utf8')
    for (const [name, render] of Object.entries(pageBlocks)) page = withBlock(page, { path, name, text: render() })
    pages.set(path, page)
  }
  return pages
}

function withBlock(page: string, { path, name, text }: { path: string; name: string; text: string }): string {
  const begin = `<!-- begin generated: ${name} -->`
  const end = `<!-- end generated: ${name} -->`
  const [before, rest] = splitAt(page, begin)
  const [, after] = splitAt(rest ?? '', end)
  if (rest === undefined || after === undefined) throw new Error(`${path} has no block "${name}"`)
  return `${before}${begin}\n\n${text}\n\n${end}${after}`
}

function splitAt(text: string, mark: string): [string, string | undefined] {
  const at = text.indexOf(mark)
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + mark.length)]
}

function errorSections(specs: Record<string, ErrorEntry>): string {
  const section = (code: string, { status, platform, retryable, title, message, remedy }: ErrorEntry) =>
    [
      `### ${code}`,
      `**${title}.** HTTP ${status}, platform code \`${platform}\`, ${retryable ? 'may be retried' : 'not to be retried'}.`,
      `> ${message}\n>\n> ${remedy}`,
    ].join('\n\n')
  return Object.entries(specs)
    .map(([code, spec]) => section(code, spec))
    .join('\n\n')
}

function failureReasonTable(reasons: Record<string, ReturnType<typeof failureSpec>>): string {
  const rows = Object.entries(reasons).map(([reason, { side, code, retries, retryDelaySeconds, meaning }]) => [
    `\`${reason}\``,
    side === 'user' ? 'FAILED' : 'ERROR',
    `\`${code}\``,
    retries === 0 ? 'no' : `${retries}, after ${retryDelaySeconds} s`,
    meaning,
  ])
  return table(['reason', 'run ends as', 'platform code', 'tried again', 'meaning'], rows)
}

function troubleSections(): string {
  return troubleAreas
    .flatMap((area) => [`## ${area}`, ...troubles.filter((trouble) => trouble.area === area).map(troubleSection)])
    .join('\n\n')
}

function troubleSection({ symptom, advice, codes, reasons = [] }: Trouble): string {
  const named = codes.map((code) => {
    const { message, remedy } = errorSpecs[code]
    return `- [\`${code}\`](errors.md#${code}): ${[message, remedy].filter((text) => text !== '{problem}').join(' ')}`
  })
  const ended = reasons.map((reason) => `- \`${reason}\`, as a failure reason: ${failureSpec(reason).meaning}`)
  return [`### ${symptom}`, advice, [...named, ...ended].join('\n')].join('\n\n')
}

function serverOptionTable(): string {
  const rows = Object.values<ServerFlag>(serverFlags).map((option) => [
    option.flag === null ? '' : `\`${option.flag} ${option.value ?? ''}\``,
    option.env === null ? '' : `\`${option.env}\``,
    option.default,
    option.description,
  ])
  return table(['flag', 'variable', 'default', 'meaning'], rows)
}

function workerOptionTable(): string {
  const rows = workerFlags.map(({ flag, env = [], configKey, default: fallback, description }) => [
    `\`${flag}\``,
    env.map((name) => `\`${name}\``).join(', '),
    configKey === undefined ? '' : `\`${configKey}\``,
    fallback ?? '',
    description,
  ])
  return table(['flag', 'variable', 'config file key', 'default', 'meaning'], rows)
}

function permissionTable(): string {
  const mark = (isAllowed: boolean) => (isAllowed ? 'yes' : '')
  const rows = Object.entries(permissions).map(([action, { user, team, worker, execution, words }]) => [
    `\`${action}\``,
    words,
    user === null ? '' : `${user} and above`,
    mark(team),
    mark(worker),
    mark(execution),
  ])
  return table(['action', 'may …', 'key of a person', 'team key', 'worker key', 'execution token'], rows)
}

/** A cell that says yes has a test of this name in `test/docker/conformance.test.ts`. */
function conformanceTable(): string {
  const rows = Object.values<ConformanceCase>(conformanceCases).map(({ name, without }) => [
    name,
    ...availableBackendNames.map((backend) => without?.[backend] ?? 'yes'),
  ])
  return table(['each of these is a test', ...availableBackendNames], rows)
}

function table(head: string[], rows: string[][]): string {
  const line = (cells: string[]) => `| ${cells.map(inCell).join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

/** A `|` would end the cell, and `<data-dir>` would be taken for a tag, unless both stand in code. */
function inCell(text: string): string {
  const escaped = text.replaceAll('|', '\\|')
  return escaped.includes('`') ? escaped : escaped.replaceAll(/<[^>]+>[^\s,]*/g, (tag) => `\`${tag}\``)
}

if (import.meta.main) {
  for (const [path, content] of await renderPages()) await writeFile(new URL(path, repositoryRoot), content)
}
