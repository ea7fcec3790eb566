import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'

/** Prints every module that is loaded by then. */
const program = `
  import { registerHooks } from 'node:module'
  const urls = []
  registerHooks({ load(url, context, next) { urls.push(url); return next(url, context) } })
  await import(process.argv[1])
  console.log(urls.join('\\n'))
`

test('an agent starts without the libraries that only its harness, a tool or a saver needs', () => {
  const agent = import.meta.resolve('./index.ts')
  const args = ['--disable-warning=ExperimentalWarning', '--input-type=module', '--eval', program, agent]
  const urls = execFileSync(process.execPath, args, { encoding: 'utf8' }).split('\n')
  expect(urls).toContain(agent)
  const libraries = urls.flatMap((url) => /\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(url)?.[1] ?? [])
  // Those of the log belong to the command line, those of the dialer are loaded with its first proxy.
  expect([...new Set(libraries)].sort()).toEqual(['eventsource-parser'])
})
