import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { findProcesses } from '@openoz/machine'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { makeRepository, startAgentFixture } from '../../../test/support/agent-fixture.ts'

/** A disk of one MiB: needs the right to mount, which containers of CI may not have. */
let disk: string
let isMounted = false
beforeEach(({ skip }) => {
  disk = mkdtempSync(join(tmpdir(), 'oz-disk-'))
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk], { stdio: 'ignore' })
    isMounted = true
  } catch {
    skip('tmpfs cannot be mounted here')
  }
})
afterEach(() => {
  if (isMounted) execFileSync('umount', ['-l', disk])
  isMounted = false
  rmSync(disk, { recursive: true, force: true })
})

test('a file that does not fit is an error that the model reads, and nothing of it is left', async () => {
  const edits = [
    { type: 'create', path: 'small.txt', content: 'x' },
    { type: 'create', path: 'large.txt', content: 'x'.repeat(200_000) },
  ]
  writeFileSync(join(disk, 'ballast'), Buffer.alloc(900_000))
  await using agent = await startAgentFixture({
    workspace: disk,
    limits: { max_output_tokens: 100_000 },
    steps: [{ toolCalls: [{ name: 'edit_files', arguments: { edits } }] }, { text: 'There is no space.' }],
  })
  expect(await agent.run()).toEqual({ exitCode: 0 })
  const said = agent.model.requests[1]?.body.messages.at(-1).content
  expect(said).toContain(`No space is left for the edited files in ${disk}`)
  expect(readdirSync(disk)).toEqual(['ballast'])
})

test('a command that fills the disk says so itself', async () => {
  const command = 'head -c 5000000 /dev/zero > big; echo "exit: $?"'
  await using agent = await startAgentFixture({
    workspace: disk,
    steps: [{ toolCalls: [{ name: 'run_command', arguments: { command } }] }, { text: 'Full.' }],
  })
  expect(await agent.run()).toEqual({ exitCode: 0 })
  expect(agent.model.requests[1]?.body.messages.at(-1).content).toMatch(/No space left.*exit: 1/)
})

test('a clone that does not fit ends the run with the folder’s name', async () => {
  await using agent = await startAgentFixture({ workspace: disk })
  const big = Buffer.from(crypto.getRandomValues(new Uint8Array(65_536)).buffer).toString('base64')
  const origin = makeRepository(join(agent.folder, 'origin'), {
    'big.txt': Array(40)
      .fill(big)
      .map((text, i) => i + text)
      .join(''),
  })
  agent.server.hello.config = { environment: { source_repos: [{ url: `file://${origin}` }] } }
  expect(await agent.run()).toEqual({ exitCode: 1 })
  const { outcome, error_code, message } = agent.server.eventsOf('turn_outcome')[0]?.data ?? {}
  expect({ outcome, error_code }).toEqual({ outcome: 'ERROR', error_code: 'disk_full' })
  expect(message).toContain(disk)
})

test('a workspace that could not be saved for want of space is no success', async () => {
  const command = 'cd origin; head -c 200000 /dev/urandom > work.bin; head -c 5000000 /dev/zero > ../big; true'
  await using agent = await startAgentFixture({
    workspace: disk,
    steps: [{ toolCalls: [{ name: 'run_command', arguments: { command } }] }, { text: 'Done.' }],
  })
  const origin = makeRepository(join(agent.folder, 'origin'), {})
  const other = makeRepository(join(agent.folder, 'other'), {})
  const source_repos = [origin, other].map((folder) => ({ url: `file://${folder}` }))
  agent.server.hello.config = { environment: { source_repos } }
  expect(await agent.run()).toEqual({ exitCode: 1 })
  const { outcome, error_code } = agent.server.eventsOf('turn_outcome')[0]?.data ?? {}
  expect({ outcome, error_code }).toEqual({ outcome: 'ERROR', error_code: 'disk_full' })
})

test('an agent that cannot keep its events ends, with its processes', async () => {
  const command = `sleep 1000 & head -c 5000000 /dev/zero > ${disk}/big; yes | head -c 60000`
  await using agent = await startAgentFixture({
    handler: () => ({ toolCalls: [{ name: 'run_command', arguments: { command } }] }),
    spool: join(disk, 'spool'),
  })
  expect(await agent.run()).toEqual({ exitCode: 1 })
  expect(await findProcesses({ marker: `OZ_EXECUTION_ID=${agent.server.hello.execution_id}` })).toEqual([])
})

test('an agent whose spool has no room goes on for as long as the control plane takes what it says', async () => {
  execFileSync('mount', ['-o', 'remount,size=4m', disk])
  const fill = `head -c 9000000 /dev/zero > ${disk}/big; yes | head -c 60000`
  const talk = 'yes | head -c 60000'
  await using agent = await startAgentFixture({
    steps: [
      { toolCalls: [{ name: 'run_command', arguments: { command: fill } }] },
      ...Array.from({ length: 25 }, () => ({ toolCalls: [{ name: 'run_command', arguments: { command: talk } }] })),
      { text: 'Said.' },
    ],
    spool: join(disk, 'spool'),
  })
  expect(await agent.run()).toEqual({ exitCode: 0 })
  expect(agent.server.eventsOf('turn_outcome')[0]?.data.outcome).toBe('SUCCEEDED')
  const text = agent.server.eventsOf('terminal_output').map(({ data }) => data.text)
  expect(text.join('').length).toBeGreaterThan(1_200_000)
})
