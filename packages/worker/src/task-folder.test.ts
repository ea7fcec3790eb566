import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { identifyProcess } from '@openoz/machine'
import { expect, test } from 'vitest'
import { shim } from './shell-text.ts'
import { readShim, removeTaskFolder, taskFolder } from './task-folder.ts'
import { until } from './test-support/until.ts'
import { createFolder } from './test-support/worker.ts'

const executionId = '01a2071c-cad9-766a-a9b9-9341919f95cb'

test.each(['saved-workspace', 'saved-workspace.spooled'])(
  'work that an agent saved beside its spool (%s) outlives the task’s folder',
  async (name) => {
    using folder = createFolder()
    const paths = taskFolder(folder.path, executionId)
    mkdirSync(join(paths.spool, name), { recursive: true })
    writeFileSync(join(paths.spool, name, 'saved.json'), '{}')
    const places: string[] = []

    await removeTaskFolder(paths, (place) => places.push(place))

    expect(existsSync(paths.folder)).toBe(false)
    expect(places).toEqual([join(folder.path, 'saved-workspaces', executionId)])
    expect(readFileSync(join(places[0] ?? '', 'saved.json'), 'utf8')).toBe('{}')
  },
)

test('a link that a task put in the place of saved work is not followed', async () => {
  using folder = createFolder()
  const paths = taskFolder(folder.path, executionId)
  mkdirSync(paths.spool, { recursive: true })
  symlinkSync('/etc', join(paths.spool, 'saved-workspace'))

  await removeTaskFolder(paths)

  expect(existsSync(join(folder.path, 'saved-workspaces'))).toBe(false)
  expect(existsSync('/etc/passwd')).toBe(true)
})

test('a shim on a machine without /proc says when it began, so that nobody who has its pid later is taken for it', async () => {
  using folder = createFolder()
  const paths = taskFolder(folder.path, executionId)
  mkdirSync(paths.folder, { recursive: true })
  const child = spawn(
    'sh',
    ['-c', shim.replaceAll('/proc/', '/nowhere/'), 'oz-shim', paths.folder, '', 'sleep', '600'],
    {
      env: { PATH: process.env.PATH, TZ: 'Asia/Tokyo' },
      detached: true,
      stdio: 'ignore',
    },
  )
  const exited = once(child, 'exit')
  try {
    const written = await until('what it says', () => readShim(paths))
    expect(written).toEqual(identifyProcess(child.pid ?? 0, 'darwin'))
    writeFileSync(paths.shim, `${child.pid}\n\n\n.\n`)
    expect(await readShim(paths)).toBeUndefined()
  } finally {
    process.kill(-(child.pid ?? 0), 'SIGKILL')
    await exited
  }
})
