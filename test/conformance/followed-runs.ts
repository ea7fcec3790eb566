import { expect } from 'vitest'
import { until } from '../support/poll.ts'
import type { CaseBody } from './backend-fixture.ts'
import type { CaseId } from './cases.ts'
import { command, type RunScene, startRun } from './run-scene.ts'

async function untilState(run: RunScene, state: string): Promise<void> {
  await until(run.executions, (all) => all.at(-1)?.state === state, { timeoutMs: 20_000, everyMs: 50 })
}

/** Whole runs that outlive something: their worker, their agent, their turn. */
export const followedRuns = {
  async workerStopped(fixture) {
    const steps = [command('echo begun; sleep 607'), command('echo again'), { text: 'Done.' }]
    await using run = await startRun(fixture, { steps })
    await run.untilSaid('begun')
    const [first] = await run.executions()
    await run.replaceWorker('stop')
    expect(first && (await fixture.countProcesses(first))).toBe(0)
    await run.cp.waitFor(run.runId, 'SUCCEEDED', 40_000)
    await untilState(run, 'ended')
    expect(await run.executions()).toMatchObject([
      { state: 'ended', failure_reason: 'graceful_shutdown' },
      { state: 'ended' },
    ])
    await run.untilNothingLeft()
  },

  async adoptWithoutHole(fixture) {
    const lines = Array.from({ length: 80 }, (_, index) => `line ${index + 1}`)
    const write = 'for i in $(seq 1 80); do echo "line $i"; sleep 0.05; done'
    await using run = await startRun(fixture, { steps: [command(write), { text: 'Done.' }] })
    await run.untilSaid('line 5\n')
    await run.replaceWorker('leave')
    await run.cp.waitFor(run.runId, 'SUCCEEDED', 40_000)
    const said = await run.output()
    expect(said.split('\n').filter((line) => line.startsWith('line '))).toEqual(lines)
    expect(await run.executions()).toHaveLength(1)
    await run.untilNothingLeft()
    expect(run.worker.events).toContainEqual(expect.objectContaining({ type: 'task_ended', result: 'succeeded' }))
  },

  async liveFollowUp(fixture) {
    const steps = [
      command('sleep 608 >/dev/null 2>&1 & echo $! > pid; echo kept > file'),
      { text: 'Done.' },
      command('kill -0 $(cat pid) && echo still-there; cat file'),
      { text: 'Done again.' },
    ]
    await using run = await startRun(fixture, { steps, idleMinutes: 5 })
    await run.cp.waitFor(run.runId, 'SUCCEEDED', 40_000)
    await untilState(run, 'idle')
    await run.cp.client.runs.followUp(run.runId, { message: 'And then?' })
    await run.untilAsked(4)
    await untilState(run, 'idle')
    expect(run.lastAsked()).toMatch(/Begin\..*And then\?.*still-there.*kept/)
    expect(await run.executions()).toHaveLength(1)
    expect((await run.cp.client.runs.get(run.runId)).state).toBe('SUCCEEDED')
  },

  async resumed(fixture) {
    const steps = [
      command('echo kept > file'),
      { text: 'Done.' },
      command('cat file | tr a-z A-Z'),
      { text: 'Done again.' },
    ]
    await using run = await startRun(fixture, { steps })
    await run.cp.waitFor(run.runId, 'SUCCEEDED', 40_000)
    await run.untilNothingLeft()
    await run.cp.client.runs.followUp(run.runId, { message: 'And then?' })
    await run.untilAsked(4)
    await run.cp.waitFor(run.runId, 'SUCCEEDED', 40_000)
    expect(run.lastAsked()).toMatch(/Begin\..*And then\?.*KEPT/)
    expect(await run.executions()).toHaveLength(2)
    await run.untilNothingLeft()
  },

  async killedAgent(fixture) {
    const steps = [
      command('echo not-saved-yet > file'),
      { text: 'Never heard.', delayMs: 60_000 },
      command('cat file | tr a-z A-Z'),
      { text: 'Done.' },
    ]
    await using run = await startRun(fixture, { steps })
    await run.untilAsked(2)
    const [first] = await run.executions()
    if (first) await fixture.killAgent(first)
    await run.cp.waitFor(run.runId, 'SUCCEEDED', 40_000)
    expect(run.lastAsked()).toContain('NOT-SAVED-YET')
    await untilState(run, 'ended')
    expect(await run.executions()).toMatchObject([
      { failure_reason: 'agent_invocation', exit_code: 137 },
      { state: 'ended' },
    ])
    await run.untilNothingLeft()
  },
} satisfies Partial<Record<CaseId, CaseBody>>
