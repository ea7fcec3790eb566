import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import type { RunAttachment } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { startAgentFixture } from '../../../test/support/agent-fixture.ts'
import { until } from '../../../test/support/poll.ts'

const attachment = (file_name: string, blob_id: string): RunAttachment => ({
  attachment_id: crypto.randomUUID(),
  file_name,
  mime_type: 'text/plain',
  size_bytes: 5,
  blob_id,
})

/** Paths that the model was told of. */
const pathsIn = (text: string) => [...text.matchAll(/ bytes\): (\/[^\\\n"]+)/g)].map(([, path]) => path ?? '')

test('files are fetched before the first turn, beside the workspace, and gone with the execution', async () => {
  const given = [attachment('notes.txt', 'blob-1'), attachment('a b.txt', 'blob-2')]
  let whileAtWork: string[] = []
  await using fixture = await startAgentFixture({
    hello: { attachments: given },
    handler: ({ body }) => {
      const paths = pathsIn(JSON.stringify(body))
      whileAtWork = paths.map((path) => readFileSync(path, 'utf8'))
      return { text: paths.join('\n') }
    },
  })
  fixture.server.blobs.set('blob-1', Buffer.from('first'))
  fixture.server.blobs.set('blob-2', Buffer.from('other'))
  expect(await fixture.run()).toMatchObject({ exitCode: 0 })
  expect(whileAtWork).toEqual(['first', 'other'])
  expect(readdirSync(fixture.workspace)).toEqual([])
  const [outcome] = fixture.server.eventsOf('turn_outcome')
  const [path = ''] = String(outcome?.data.message).split('\n')
  expect(path.startsWith(fixture.spool)).toBe(true)
  expect(existsSync(dirname(path))).toBe(false)
  const notices = fixture.server.eventsOf('notice').map(({ data }) => data.text)
  expect(notices).toContain('Attached: notes.txt, a b.txt.')
})

test.each([
  ['one that is not there', 'notes.txt', 'No blob'],
  ['one whose name leads elsewhere', '../notes.txt', 'its name is none'],
])('%s ends the turn in words', async (_, name, words) => {
  await using fixture = await startAgentFixture({ steps: [], hello: { attachments: [attachment(name, 'missing')] } })
  expect(await fixture.run()).toMatchObject({ exitCode: 1 })
  const [outcome] = fixture.server.eventsOf('turn_outcome')
  expect(outcome?.data).toMatchObject({
    outcome: 'ERROR',
    error_code: 'attachment_unavailable',
    message: expect.stringContaining(words),
  })
  expect(readdirSync(fixture.spool).filter((file) => file.startsWith('oz-attachments'))).toEqual([])
})

test('what was attached for a later turn is told with that turn', async () => {
  const [first, second] = [attachment('first.txt', 'blob-1'), attachment('second.txt', 'blob-2')]
  const asked: string[] = []
  await using fixture = await startAgentFixture({
    hello: { attachments: [first], idle_timeout_ms: 20_000 },
    handler: ({ body }) => {
      asked.push(JSON.stringify(body))
      return { text: 'done' }
    },
  })
  fixture.server.blobs.set('blob-1', Buffer.from('first'))
  fixture.server.blobs.set('blob-2', Buffer.from('other'))
  const running = fixture.run()
  await until(() => fixture.server.questions.length > 0)
  fixture.server.hello.attachments = [first, second]
  fixture.server.queueTurn('look at the second')
  await until(() => asked.length === 2)
  fixture.stop.abort()
  await running
  expect(pathsIn(asked[0] ?? '')).toHaveLength(1)
  const paths = pathsIn(asked[1] ?? '')
  expect(paths.map((path) => path.split('/').at(-1))).toEqual(['first.txt', 'second.txt'])
  expect(new Set(paths.map(dirname)).size).toBe(1)
})
