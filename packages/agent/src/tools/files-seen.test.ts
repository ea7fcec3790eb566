import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { startHarnessFixture, turn } from '../../../../test/support/harness-fixture.ts'
import { createFilesSeen } from './files-seen.ts'

const never = () => new AbortController().signal

test('a file that changed since an earlier process of the conversation read it is not overwritten', async () => {
  const read = { name: 'read_files', arguments: { files: [{ path: 'a.txt' }, { path: 'b.txt' }] } }
  const create = (path: string) => ({ type: 'create', path, content: 'from memory', overwrite: true })
  const edit = (path: string) => ({ name: 'edit_files', arguments: { edits: [create(path)] } })
  await using oz = await startHarnessFixture({
    steps: [{ toolCalls: [read] }, { text: 'Read.' }, { toolCalls: [edit('a.txt'), edit('b.txt')] }, { text: 'Done.' }],
  })
  const [a, b] = [join(oz.folder, 'a.txt'), join(oz.folder, 'b.txt')]
  for (const file of [a, b]) writeFileSync(file, 'old')
  const first = await oz.open()
  await first.prompt(turn('read'), never())
  const checkpoint = (await first.checkpoint()) ?? undefined
  // What is kept on the disk after each call knows it as well.
  expect(oz.kept.at(-1)?.data).toEqual(checkpoint?.data)
  writeFileSync(a, 'changed by a person')
  const second = await oz.open({ checkpoint })
  await second.prompt(turn('edit'), never())
  expect(readFileSync(a, 'utf8')).toBe('changed by a person')
  expect(readFileSync(b, 'utf8')).toBe('from memory')
  const results = JSON.stringify(oz.model.requests.at(-1)?.body.messages)
  expect(results).toContain('a.txt has changed since you read it; read it again')
})

test('the newest two thousand files of the workspace are kept, wherever the next one is', () => {
  const seen = createFilesSeen('/srv/work')
  seen.saw('/srv/work/first', '1')
  for (let i = 0; i < 1_999; i++) seen.saw(`/srv/work/sub/${i}`, '2')
  seen.saw('/elsewhere/x', '3')
  seen.saw('/srv/workshop/x', '3')
  seen.saw('/srv/work/first', '4')
  seen.saw('/srv/work/last', '5')
  const kept = seen.toKeep()
  expect(kept.length).toBe(2_000)
  expect(kept.slice(-2)).toEqual([
    ['first', '4'],
    ['last', '5'],
  ])
  expect(kept[0]).toEqual(['sub/1', '2'])
  const next = createFilesSeen('/other', kept)
  expect(next.lastSeen('/other/first')).toBe('4')
  expect(next.lastSeen('/srv/work/first')).toBe(undefined)
})
