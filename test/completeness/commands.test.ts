import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { codeIn, markdownFiles, read, root } from './documents.ts'

const run = promisify(execFile)
const oz = fileURLToPath(new URL('packages/cli/bin/oz.mjs', root))
const worker = fileURLToPath(new URL('packages/cli/bin/oz-agent-worker.mjs', root))

/** `npx oz run list --state failed` → the words `oz run list` and the flags `--state`. */
interface Usage {
  words: string
  flags: string[]
}

const code = markdownFiles().flatMap((path) => codeIn(read(path)))
const usages = code.flatMap(usagesIn)

test('every command of `oz` that a document shows exists, with the flags that it shows', {
  timeout: 120_000,
}, async () => {
  const commands = Map.groupBy(usages, ({ words }) => words)
  expect(commands.size).toBeGreaterThan(15)
  const help = await helpOf([...commands.keys()])
  for (const [words, found] of commands) {
    const text = help.get(words) ?? ''
    // An unknown command answers the help of the one above it.
    expect(text.split('\n')[0]?.replaceAll(/\|[a-z-]+/g, ''), words).toMatch(new RegExp(`^Usage: ${words}( [[<]|$)`))
    for (const flag of found.flatMap(({ flags }) => flags)) expect(text, `${words} ${flag}`).toContain(flag)
  }
})

test('every top command of `oz` is shown in some document', async () => {
  const { stdout } = await run(process.execPath, [oz, '--help'])
  const [, commands = ''] = stdout.split('\nCommands:\n')
  const names = [...commands.matchAll(/^ {2}([a-z-]+)/gm)].map((match) => match[1]).filter((name) => name !== 'help')
  expect(names.length).toBeGreaterThan(5)
  for (const name of names)
    expect(
      usages.some(({ words }) => words.split(' ')[1] === name),
      name,
    ).toBe(true)
})

test('every script that a document runs with npm exists', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
  const named = code.flatMap((line) => [...line.matchAll(/\bnpm (?:run (?:--silent )?([a-z]+)|(test|start)\b)/g)])
  for (const [, script, short] of named) expect(Object.keys(scripts)).toContain(script ?? short)
})

/** Words of the command line that are no arguments: `run` and `list`, but not an id, a path, or a placeholder in capitals. */
function usagesIn(line: string): Usage[] {
  const [, program, rest = ''] = /(?:^|\s)(oz|oz-agent-worker)(?: (.*))?$/.exec(line.replace(/\s+#.*$/, '')) ?? []
  if (program === undefined || /^\s*[│▌✔✘●]/.test(line)) return []
  const tokens = rest.split(/\s+/).filter((token) => token !== '')
  const firstOther = tokens.findIndex((token) => !/^[a-z][a-z-]*$/.test(token))
  const words = tokens.slice(0, firstOther < 0 ? tokens.length : firstOther)
  const flags = tokens.map((token) => /^--[a-z-]+/.exec(token)?.[0] ?? '').filter((flag) => flag !== '')
  return [{ words: [program, ...words.slice(0, subcommands(words))].join(' '), flags }]
}

/** `oz run list` has two words; what follows (`oz api-key create ci`) is an argument. */
function subcommands([first, second]: string[]): number {
  if (first === 'run' && ['message', 'conversation'].includes(second ?? '')) return 3
  return ['agent', 'run', 'artifact', 'environment', 'model', 'worker', 'api-key', 'bundle'].includes(first ?? '')
    ? 2
    : 1
}

/** Four at a time: each is a start of the whole program. */
async function helpOf(commands: string[]): Promise<Map<string, string>> {
  const help = new Map<string, string>()
  const waiting = [...commands]
  const lane = async () => {
    for (let command = waiting.pop(); command !== undefined; command = waiting.pop()) {
      const [program, ...words] = command.split(' ')
      const args = [program === 'oz' ? oz : worker, ...words, '--help']
      const { stdout } = await run(process.execPath, args).catch((error: { stderr: string }) => ({
        stdout: error.stderr,
      }))
      help.set(command, stdout)
    }
  }
  await Promise.all([lane(), lane(), lane(), lane()])
  return help
}
