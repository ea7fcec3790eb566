import { expect } from 'vitest'
import { until } from '../support/poll.ts'
import type { CaseBody } from './backend-fixture.ts'
import type { CaseId } from './cases.ts'
import { command, type RunScene, startRun } from './run-scene.ts'

/** Long enough for what has to be saved before, too: an agent is asked before it is killed. */
const cancelWithinMs = 3_000

async function expectCancelled(fixture: Parameters<CaseBody>[0], run: RunScene): Promise<void> {
  const [execution] = await run.executions()
  if (!execution) throw new Error('the run has no execution')
  const startedAt = performance.now()
  await run.cp.client.runs.cancel(run.runId)
  await run.cp.waitFor(run.runId, 'CANCELLED')
  await until(
    () => fixture.countProcesses(execution),
    (count) => count === 0,
    { everyMs: 50 },
  )
  expect(performance.now() - startedAt).toBeLessThan(cancelWithinMs)
  await run.untilNothingLeft()
}

/** Whole runs, each by one execution. */
export const runCases = {
  async wholeRun(fixture) {
    const steps = [command('echo from-a-command; pwd; echo work > file; cat file'), { text: 'Done.' }]
    await using run = await startRun(fixture, { steps })
    const { status_message } = await run.cp.waitFor(run.runId, 'SUCCEEDED', 40_000)
    expect(status_message?.message).toContain('Done.')
    expect(await run.cp.statesOf(run.runId)).toEqual(['QUEUED', 'PENDING', 'CLAIMED', 'INPROGRESS', 'SUCCEEDED'])
    expect(await run.output()).toContain('from-a-command')
    const events = await run.cp.eventsOf(run.runId)
    const steppedThrough = events.flatMap(({ type, data }) =>
      type === 'setup_step' && data.status === 'completed' ? [data.step] : [],
    )
    expect(steppedThrough).toContain('start')
    expect(events.map(({ type }) => type)).not.toContain('event_invalid')
    await run.untilNothingLeft()
    expect(run.worker.events).toContainEqual(expect.objectContaining({ type: 'task_ended', result: 'succeeded' }))
    expect(await run.executions()).toMatchObject([{ state: 'ended' }])
  },

  async largeCommandOutput(fixture) {
    const write = 'yes 0123456789abcdef0123456789abcdef | head -c 25000000; echo; echo the-end'
    await using run = await startRun(fixture, { steps: [command(write), { text: 'Done.' }] })
    await run.cp.waitFor(run.runId, 'SUCCEEDED', 40_000)
    expect(run.lastAsked()).toContain('the-end')
    expect(run.lastAsked().length).toBeLessThan(1_000_000)
    await run.untilNothingLeft()
  },

  async cancelCommand(fixture) {
    const deaf = 'trap "" TERM INT HUP QUIT; setsid sleep 606 & echo begun; while :; do sleep 0.1; done'
    await using run = await startRun(fixture, { steps: [command(deaf), { text: 'Never.' }] })
    await run.untilSaid('begun')
    await expectCancelled(fixture, run)
  },

  async cancelAgent(fixture) {
    const scene = 'trap "" TERM INT HUP QUIT; echo ready; while :; do sleep 0.1; done'
    await using run = await startRun(fixture, { worker: { scene } })
    await until(
      async () => {
        const [execution] = await run.executions()
        return execution === undefined ? '' : fixture.outputOf(execution, run.worker.folder)
      },
      (said) => said.includes('ready'),
      { timeoutMs: 20_000, everyMs: 50 },
    )
    await expectCancelled(fixture, run)
  },

  async environment(fixture) {
    const look = 'env; echo of-the-parent; tr "\\0" "\\n" </proc/$PPID/environ; echo looked'
    const secret = 'only-for-the-worker'
    const worker = { env: { SECRET_OF_WORKER: secret }, taskEnvironment: { FROM_CONFIG: 'for-the-task' } }
    await using run = await startRun(fixture, { steps: [command(look), { text: 'Done.' }], worker })
    await run.cp.waitFor(run.runId, 'SUCCEEDED', 40_000)
    const said = run.lastAsked()
    expect(said).toContain('looked')
    expect(said).toContain('FROM_CONFIG=for-the-task')
    expect(said).toContain(`OZ_RUN_ID=${run.runId}`)
    expect(said).not.toContain(secret)
    expect(said).not.toContain(run.cp.adminKey)
    expect(said).not.toMatch(/\bet-[A-Za-z0-9_-]{16,}/)
    expect(said).not.toMatch(/(WARP_API_KEY|OZ_API_KEY|LD_LIBRARY_PATH|NODE_OPTIONS|NODE_PATH|GIT_EXEC_PATH)=/)
    await run.untilNothingLeft()
  },
} satisfies Partial<Record<CaseId, CaseBody>>
