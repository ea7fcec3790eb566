import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { removeTaskFolder, taskFolder } from './task-folder.ts'
import { createFolder } from './test-support/worker.ts'

const executionId = '01a2071c-cad9-766a-a9b9-9341919f95cb'

test('work that an agent saved beside its spool outlives the task’s folder', async () => {
  using folder = createFolder()
  const paths = taskFolder(folder.path, executionId)
  mkdirSync(join(paths.spool, 'saved-workspace'), { recursive: true })
  writeFileSync(join(paths.spool, 'saved-workspace', 'saved.json'), '{}')

  await removeTaskFolder(paths)

  expect(existsSync(paths.folder)).toBe(false)
  expect(readFileSync(join(folder.path, 'saved-workspaces', executionId, 'saved.json'), 'utf8')).toBe('{}')
})

test('a link that a task put in the place of saved work is not followed', async () => {
  using folder = createFolder()
  const paths = taskFolder(folder.path, executionId)
  mkdirSync(paths.spool, { recursive: true })
  symlinkSync('/etc', join(paths.spool, 'saved-workspace'))

  await removeTaskFolder(paths)

  expect(existsSync(join(folder.path, 'saved-workspaces'))).toBe(false)
  expect(existsSync('/etc/passwd')).toBe(true)
})
