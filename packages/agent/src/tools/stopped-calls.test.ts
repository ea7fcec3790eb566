import { copyFileSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { type HarnessFixture, said, startHarnessFixture, turn } from '../../../../test/support/harness-fixture.ts'

const run = (command: string) => ({ toolCalls: [{ name: 'run_command', arguments: { command } }] })

/** Starts the command, and interrupts it once it has printed. */
async function interrupt(oz: HarnessFixture, keepOutput?: (file: string) => Promise<string>) {
  const session = await oz.open(keepOutput ? { keepOutput } : {})
  const ended = session.prompt(turn('go'), new AbortController().signal)
  await expect.poll(() => oz.eventsOf('terminal_output').some(({ text }) => text.includes('PRINTED'))).toBe(true)
  session.interrupt(said('stop that', 'interrupt'))
  expect(await ended).toMatchObject({ outcome: 'SUCCEEDED' })
  await session.close()
  const results = oz.model.requests[1]?.body.messages.filter(({ role }: { role: string }) => role === 'tool')
  return JSON.parse(results[0].content)
}

test('of a command that is interrupted the model and the viewers get what it had printed', async () => {
  await using oz = await startHarnessFixture({ steps: [run('echo PRINTED; sleep 30'), { text: 'Stopped.' }] })
  const error = 'This call was stopped before it ended, with everything that it had started.'
  expect(await interrupt(oz)).toEqual({ status: 'stopped', error, output: 'PRINTED\n' })
  expect(oz.eventsOf('tool_call_update')).toMatchObject([
    {
      status: 'failed',
      cancelled: true,
      content: [{ content: { text: 'PRINTED\n' } }],
      rawOutput: { status: 'stopped', error },
    },
  ])
})

test('the same of one that does not want to end, and of one whose long output takes its time to be kept', async () => {
  const command = 'trap "" TERM; seq 10000; echo PRINTED; while :; do sleep 0.1; done'
  await using oz = await startHarnessFixture({ steps: [run(command), { text: 'Stopped.' }] })
  const file = join(dirname(oz.folder), 'kept')
  const { output } = await interrupt(oz, async (from) => {
    copyFileSync(from, file)
    await new Promise((resolve) => setTimeout(resolve, 500))
    return 'blob-1'
  })
  expect(output).toMatch(/^1\n2\n[\s\S]*characters are left out here[\s\S]*\n10000\nPRINTED\n$/)
  expect(readFileSync(file, 'utf8')).toMatch(/^1\n[\s\S]*\nPRINTED\n$/)
  expect(oz.eventsOf('tool_call_update')).toMatchObject([{ status: 'failed', cancelled: true, blob_id: 'blob-1' }])
})

test('of a command that is cancelled the conversation keeps what it had printed', async () => {
  await using oz = await startHarnessFixture({ steps: [run('echo PRINTED; sleep 30')] })
  const session = await oz.open()
  const stop = new AbortController()
  const ended = session.prompt(turn('go'), stop.signal)
  await expect.poll(() => oz.eventsOf('terminal_output').length).toBeGreaterThan(0)
  stop.abort(new Error('cancelled'))
  await expect(ended).rejects.toThrow('cancelled')
  const { messages } = JSON.parse(Buffer.from((await session.checkpoint())?.data ?? []).toString())
  expect(JSON.stringify(messages.at(-1))).toContain('PRINTED')
})

test('a call that fails by itself is not called cancelled', async () => {
  const call = { name: 'read_files', arguments: { files: [{ path: 'absent' }] } }
  await using oz = await startHarnessFixture({ steps: [{ toolCalls: [call] }, { text: 'Done.' }] })
  await (await oz.open()).prompt(turn('go'), new AbortController().signal)
  const [update] = oz.eventsOf('tool_call_update')
  expect([update?.status, update?.cancelled]).toEqual(['failed', undefined])
})
