import { execFile, execFileSync } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { loadProgram } from '../top-commands.ts'
import { commandNodes } from './command-tree.ts'
import { shellScripts } from './shell-scripts.ts'

const run = promisify(execFile)

const nodes = commandNodes(await loadProgram())
let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'oz-completions-'))
  for (const [shell, script] of Object.entries(shellScripts)) await writeFile(join(folder, shell), script(nodes))
  await writeFile(join(folder, 'a config.yaml'), '')
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const isInstalled = (shell: string) => {
  try {
    execFileSync(shell, ['-c', 'exit 0'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

for (const shell of ['bash', 'zsh', 'fish'] as const) {
  test.skipIf(!isInstalled(shell))(`${shell} can read what completes the command line in it`, async () => {
    await run(shell, ['-n', join(folder, shell)])
  })
}

/** Presses Tab behind the line as readline does: it cuts words at `=`, too, and calls the function that `complete` names. */
async function complete(line: string): Promise<string[]> {
  const words = line.split(/[ ]+|(?<==)|(?==)/)
  const program = `
    source "$0"
    [[ $(complete -p oz) == 'complete -F _oz oz' ]] || exit 1
    COMP_WORDS=("$@"); COMP_CWORD=$((\${#COMP_WORDS[@]} - 1)); COMPREPLY=()
    _oz
    printf '%s\\n' "\${COMPREPLY[@]}"`
  const { stdout } = await run('bash', ['--norc', '-c', program, join(folder, 'bash'), ...words], { cwd: folder })
  return stdout.split('\n').filter((word) => word !== '')
}

test('bash completes commands, their aliases, options, and what options can be', async () => {
  expect(await complete('oz r')).toEqual(['run', 'restore'])
  expect(await complete('oz ')).toEqual(expect.arrayContaining(['up', 'agent', 'run', 'doctor', 'completions']))
  expect(await complete('oz run l')).toEqual(['list'])
  expect(await complete('oz task l')).toEqual(['list'])
  expect(await complete('oz run list --st')).toEqual(['--state'])
  expect(await complete('oz run list --state ')).toEqual(expect.arrayContaining(['queued', 'succeeded']))
  expect(await complete('oz run list --state=s')).toEqual(['succeeded'])
  expect(await complete('oz completions ')).toEqual(['bash', 'zsh', 'fish'])
  expect(await complete('oz run get ')).toEqual([])
})

test('the value of an option is no command, and files are offered where one is meant', async () => {
  expect(await complete('oz --api-key run e l')).toEqual(['list'])
  expect(await complete('oz --output-format=json run list --sort-o')).toEqual(['--sort-order'])
  expect(await complete('oz agent run-cloud --prompt list --file a')).toEqual(['a config.yaml'])
  expect(await complete('oz agent run-cloud --prompt ')).toEqual([])
})

test('what the help does not show is not offered', async () => {
  expect(await complete('oz artifact ')).toEqual(['get', 'download'])
  expect(await complete('oz --server-')).toEqual(['--server-url'])
})

test('every command says what it does and shows an example', async () => {
  const program = await loadProgram()
  const leaves = nodes.filter(({ path, isHidden }) => !isHidden && !nodes.some(({ parent }) => parent === path))
  expect(leaves.length).toBeGreaterThan(30)
  for (const { path, summary } of leaves) {
    const command = path
      .split(' ')
      .slice(1)
      .reduce((found, name) => found.commands.find((one) => one.name() === name) ?? found, program)
    let help = ''
    command.configureOutput({ writeOut: (text) => (help += text) })
    command.outputHelp()
    expect(summary, path).not.toBe('')
    expect(help, path).toMatch(new RegExp(`Examples:\\n(.*\\n)* {2}\\$ .*\\boz ${path.split(' ')[1]}`))
  }
})
