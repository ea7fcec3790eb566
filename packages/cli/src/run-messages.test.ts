import { expect, test } from 'vitest'
import { useControlPlane } from './test-support/control-plane.ts'
import { runOz, startOz } from './test-support/run-program.ts'

/** Messages between runs, against one real control plane without a worker: every run waits. */
const home = useControlPlane()

const oz = (args: string[], env = {}) => runOz(args, { ...home.env, ...env })
const json = async (args: string[]) => JSON.parse((await oz([...args, '--output-format', 'json'])).stdout)
const unknownId = '0198c2f0-0000-7000-8000-000000000000'

async function createRun(): Promise<string> {
  return (await json(['agent', 'run-cloud', '-p', 'x', '--host', 'nobody'])).run_id
}

function sending(from: string, to: string[], subject = 'Schema'): string[] {
  const recipients = to.flatMap((ids) => ['--to', ids])
  return [
    'run',
    'message',
    'send',
    '--sender-run-id',
    from,
    ...recipients,
    '--subject',
    subject,
    '--body',
    'Two\nlines',
  ]
}

test('a message is sent to several runs, listed, marked and read', async () => {
  const [from, a, b, c] = [await createRun(), await createRun(), await createRun(), await createRun()]
  const { message_ids } = await json(sending(from, [`${a}, ${b}`, c]))
  expect(message_ids).toHaveLength(3)
  expect(await json(['run', 'message', 'list', a])).toMatchObject([
    { message_id: message_ids[0], sender_run_id: from, subject: 'Schema', delivered_at: null },
  ])
  const delivered = await json(['run', 'message', 'delivered', message_ids[0]])
  expect(delivered).toEqual({ message_id: message_ids[0], delivered: true })
  expect((await oz(['run', 'message', 'mark-delivered', message_ids[1]])).stdout).toContain('is delivered')
  const { stdout } = await oz(['run', 'message', 'list', a])
  expect(stdout).toMatch(/Schema .* delivered/)
  expect((await oz(['run', 'message', 'read', message_ids[0]])).stdout).toMatch(
    new RegExp(`^From run +${from}\nSubject +Schema\nSent +.*Z\n\nTwo\nlines\n$`),
  )
  expect(await json(['run', 'message', 'list', a, '--unread'])).toEqual([])
  expect(await json(['run', 'message', 'list', b, '--unread', '-L', '1'])).toHaveLength(1)
  expect(await json(['run', 'message', 'list', b, '--since', '2999-01-01T00:00:00Z'])).toEqual([])
  expect((await oz(sending(from, [c]))).stdout).toMatch(/^Sent message \S+\.\n$/)
})

test('OZ_RUN_ID says whose messages may be read', async () => {
  const [from, to] = [await createRun(), await createRun()]
  const { message_ids } = await json(sending(from, [to]))
  for (const what of ['read', 'mark-delivered']) {
    const args = ['run', 'message', what, message_ids[0]]
    expect(await oz(args, { OZ_RUN_ID: from })).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining('message_not_found'),
    })
    expect(await oz(args, { OZ_RUN_ID: 'run-7' })).toMatchObject({
      exitCode: 2,
      stderr: expect.stringContaining('OZ_RUN_ID'),
    })
    expect((await oz(args, { OZ_RUN_ID: to })).exitCode).toBe(0)
    expect((await oz(args, { OZ_RUN_ID: '' })).exitCode).toBe(0)
  }
})

test('what cannot be sent or found is said in words', async () => {
  const [from, over] = [await createRun(), await createRun()]
  await oz(['run', 'cancel', over])
  expect((await oz(sending(from, [over]))).stderr).toContain('message_recipient_ended')
  expect(await oz(sending(from, [',']))).toMatchObject({ exitCode: 2 })
  expect(await oz(['run', 'message', 'send', '--to', over])).toMatchObject({ exitCode: 2 })
  expect(await oz(['run', 'message', 'list', from, '-L', '101'])).toMatchObject({ exitCode: 2 })
  expect((await oz(['run', 'message', 'list', unknownId])).stderr).toContain('run_not_found')
  expect((await oz(['run', 'message', 'read', unknownId])).stderr).toContain('message_not_found')
  const watching = ['run', 'message', 'watch']
  expect(await oz([...watching, from])).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('ndjson') })
  expect((await oz([...watching, unknownId, '--output-format', 'ndjson'])).stderr).toContain('run_not_found')
})

test('messages are watched as they come, from a sequence on, until an interrupt', async () => {
  const [from, to] = [await createRun(), await createRun()]
  await oz(sending(from, [to], 'first'))
  const args = ['run', 'message', 'watch', to, '--output-format', 'ndjson']
  const watching = startOz(args, home.env)
  const first = JSON.parse(await watching.line(/first/))
  expect(first).toEqual({
    sequence: expect.any(Number),
    message_id: expect.any(String),
    sender_run_id: from,
    subject: 'first',
    body: 'Two\nlines',
    occurred_at: expect.stringMatching(/Z$/),
  })
  await oz(sending(from, [to], 'second'))
  await watching.line(/second/)
  const later = startOz([...args, '--since-sequence', String(first.sequence)], home.env)
  await later.line(/second/)
  for (const program of [watching, later]) program.child.kill('SIGINT')
  expect(await watching.ended).toMatchObject({ exitCode: 130, stderr: '' })
  expect((await later.ended).stdout).not.toContain('first')
  expect(await json(['run', 'message', 'list', to, '--unread'])).toEqual([])
})
