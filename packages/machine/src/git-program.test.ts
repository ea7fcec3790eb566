import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { gitProgram } from './git-program.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'oz-git-'))
  for (const name of ['image', 'bundle/libexec/git-core', 'bundle/etc'])
    mkdirSync(join(folder, name), { recursive: true })
})
afterEach(() => rmSync(folder, { recursive: true }))

const put = (name: string, mode = 0o755) => writeFileSync(join(folder, name), '', { mode })
const find = (env: NodeJS.ProcessEnv = {}) =>
  gitProgram({ PATH: join(folder, 'image'), ...env }, { bundle: join(folder, 'bundle') })

test('the image’s own git goes first, and gets nothing but what it was given', () => {
  put('image/git')
  put('bundle/libexec/git-core/git')
  expect(find({ A: 'b' })).toEqual({ program: 'git', env: { PATH: join(folder, 'image'), A: 'b' } })
})

test('without one it is the bundle’s, which is told where its parts are', () => {
  put('image/git', 0o644)
  put('bundle/libexec/git-core/git')
  const { program, env } = find({ LD_PRELOAD: '/x.so', GIT_SSL_CAINFO: '/own.pem' }) ?? {}
  expect(program).toBe(join(folder, 'bundle/libexec/git-core/git'))
  expect(env).toEqual({
    PATH: join(folder, 'image'),
    GIT_EXEC_PATH: join(folder, 'bundle/libexec/git-core'),
    GIT_TEMPLATE_DIR: join(folder, 'bundle/share/git-templates'),
    GIT_SSL_CAINFO: '/own.pem',
  })
})

test('without either there is none', () => {
  expect(find()).toBe(undefined)
  put('image/git')
  expect(gitProgram({ PATH: join(folder, 'bundle') })).toBe(undefined)
})
