import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { endProcessTree } from '@openoz/machine'
import { expect, test } from 'vitest'
import { type AgentFixture, startAgentFixture } from '../../../test/support/agent-fixture.ts'

const command = (text: string, more: object = {}) => ({
  toolCalls: [{ name: 'run_command', arguments: { command: text, ...more } }],
})
const cancel = () => ({ id: crypto.randomUUID(), type: 'cancel' as const, payload: { reason: 'user' } })

function terminal({ server }: AgentFixture): string {
  return server
    .eventsOf('terminal_output')
    .map(({ data }) => data.text)
    .join('')
}

function textOf({ server }: AgentFixture, blobId: unknown): string | undefined {
  return server.blobs.get(String(blobId))?.toString('utf8')
}

test('what a command in the background had said is with the control plane before the agent says goodbye', async () => {
  await using agent = await startAgentFixture({
    steps: [
      command('seq 20000; touch printed; sleep 1000', { background: true }),
      command('until [ -e printed ]; do sleep 0.02; done'),
      { text: 'Done.' },
    ],
  })
  expect(await agent.run()).toEqual({ exitCode: 0 })
  const [, blobId] = /all of its output is kept as blob ([0-9a-f-]{36})\.\]/.exec(terminal(agent)) ?? []
  expect(textOf(agent, blobId)).toMatch(/^1\n2\n[\s\S]*\n20000\n$/)
  expect(agent.server.lateRequests).toEqual([])
  expect(agent.server.questions.at(-1)).toMatchObject({ isLast: true })
})

test('of a cancelled command the log has what it had printed, and the whole of it as a blob', async () => {
  await using agent = await startAgentFixture({ steps: [command('seq 10000; echo PRINTED; sleep 1000')] })
  const running = agent.run()
  await expect.poll(() => terminal(agent), { timeout: 10_000 }).toContain('PRINTED')
  agent.server.send(cancel())
  expect(await running).toEqual({ exitCode: 1 })
  const [update] = agent.server.eventsOf('tool_call_update')
  expect(update?.data).toMatchObject({ status: 'failed', cancelled: true, rawOutput: { status: 'stopped' } })
  expect(textOf(agent, update?.data.blob_id)).toMatch(/^1\n2\n[\s\S]*\n10000\nPRINTED\n$/)
  expect(agent.server.eventsOf('turn_outcome')[0]?.data.outcome).toBe('CANCELLED')
})

test('an artifact is kept as what it is, and an output as text', async () => {
  await using agent = await startAgentFixture({
    steps: [
      command('seq 20000'),
      { toolCalls: [{ name: 'report_artifact', arguments: { artifact_type: 'FILE', path: 'a.pdf' } }] },
      { text: 'Done.' },
    ],
  })
  writeFileSync(join(agent.workspace, 'a.pdf'), '%PDF-1.4')
  expect(await agent.run()).toEqual({ exitCode: 0 })
  const [{ data: artifact } = { data: {} }] = agent.server.eventsOf('artifact')
  const [{ data: update } = { data: {} }] = agent.server.eventsOf('tool_call_update')
  const typeOf = (blobId: unknown) => agent.server.blobTypes.get(String(blobId))
  expect(typeOf('blob_id' in artifact && artifact.blob_id)).toBe('application/pdf')
  expect(typeOf('blob_id' in update && update.blob_id)).toBe('text/plain; charset=utf-8')
})

test('an agent that is killed leaves outputs only in the folder of its task', async () => {
  await using agent = await startAgentFixture({ steps: [command('echo begun; sleep 1000')] })
  const before = readdirSync(agent.folder)
  const process = agent.spawn()
  await agent.server.waitFor(({ type }) => type === 'terminal_output')
  const outputs = (folder: string) => readdirSync(folder).filter((name) => name.startsWith('oz-output-'))
  expect(outputs(agent.spool).length).toBe(1)
  const gone = new Promise((resolve) => process.once('exit', resolve))
  process.kill('SIGKILL')
  await gone
  await endProcessTree({ marker: `OZ_EXECUTION_ID=${agent.server.hello.execution_id}` }, 0)
  expect(outputs(agent.folder)).toEqual([])
  expect(readdirSync(agent.folder).filter((name) => !before.includes(name) && name !== 'spool')).toEqual([])
})
