import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { commandShell, ownTree, withOneOutput } from './shell.ts'

const only =
  (...paths: string[]) =>
  (path: string) =>
    paths.includes(path)

test.each([
  ['linux', ['/bin/bash', '/bin/sh'], '/bin/bash', 'bash'],
  ['linux', ['/bin/sh'], '/bin/sh', 'sh'],
  ['darwin', ['/bin/bash'], '/bin/bash', 'bash'],
  ['win32', ['C:\\Program Files\\Git\\bin\\bash.exe'], 'C:\\Program Files\\Git\\bin\\bash.exe', 'bash'],
  [
    'win32',
    ['C:\\Users\\p\\AppData\\Local\\Programs\\Git\\bin\\bash.exe'],
    'C:\\Users\\p\\AppData\\Local\\Programs\\Git\\bin\\bash.exe',
    'bash',
  ],
  ['win32', ['/bin/bash'], 'C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\powershell.exe', 'powershell'],
] as const)('on %s with %j commands are given to %s', (platform, paths, program, kind) => {
  const env = {
    ProgramFiles: 'C:\\Program Files',
    LOCALAPPDATA: 'C:\\Users\\p\\AppData\\Local',
    SystemRoot: 'C:\\Windows',
  }
  expect(commandShell({ platform, env, exists: only(...paths) })).toMatchObject({ program, kind })
})

test('an image may keep its shell elsewhere, or have none', () => {
  const env = { PATH: 'here:/busybox:/usr/local/bin' }
  const found = (...paths: string[]) => commandShell({ platform: 'linux', env, exists: only(...paths) })
  expect(found('/busybox/sh', '/here/sh')).toMatchObject({ program: '/busybox/sh', kind: 'sh' })
  expect(found('/bin/sh', '/usr/local/bin/bash')).toMatchObject({ program: '/usr/local/bin/bash', kind: 'bash' })
  expect(() => found('/bin/ls')).toThrow('There is no shell here')
})

test('the script is one argument for every shell', () => {
  const bash = commandShell({ platform: 'linux', exists: only('/bin/bash') })
  expect(bash.args('echo a; echo b')).toEqual(['-c', 'echo a; echo b'])
  const powershell = commandShell({ platform: 'win32', env: {}, exists: only() })
  expect(powershell.args('echo a').slice(-2)).toEqual(['-Command', 'echo a'])
})

test('stdout and stderr come in the order in which they were written', () => {
  const shell = commandShell()
  const script = withOneOutput(shell, 'echo 1; echo 2 >&2; echo 3')
  expect(execFileSync(shell.program, shell.args(script), { encoding: 'utf8' })).toBe('1\n2\n3\n')
})

test('each kind of shell is only asked for what it can do', () => {
  expect(withOneOutput({ kind: 'bash' }, 'x', { closing: [7, 23] })).toBe('exec 2>&1 7>&- 23>&-\nx')
  expect(withOneOutput({ kind: 'sh' }, 'x', { isMerged: false, closing: [7, 23] })).toBe('exec 7>&-\nx')
  expect(withOneOutput({ kind: 'bash' }, 'x', { isMerged: false })).toBe('x')
  expect(withOneOutput({ kind: 'powershell' }, 'x', { closing: [7] })).toBe('& {\nx\n} 2>&1\nexit $LASTEXITCODE')
})

test('on Windows no window opens for a command', () => {
  expect(ownTree('win32')).toEqual({ detached: false, windowsHide: true })
  expect(ownTree('linux').detached).toBe(true)
})
