import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runAgent } from '@openoz/agent'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { makeRepository } from './support/agent-fixture.ts'
import { startControlPlane } from './support/control-plane.ts'
import { startScriptedModel } from './support/scripted-model.ts'

const providers = [
  { wire: 'openai-chat', environment: (url: string) => ({ OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${url}/v1` }) },
  {
    wire: 'anthropic-messages',
    environment: (url: string) => ({ ANTHROPIC_API_KEY: 'sk-test', ANTHROPIC_BASE_URL: url }),
  },
]

test.each(providers)(
  'a run goes through server, gateway and agent to its saved branch ($wire)',
  async ({ wire, environment }) => {
    await using model = await startScriptedModel({
      apiKey: 'sk-test',
      steps: [
        { toolCalls: [{ name: 'run_command', arguments: { command: 'echo 4 > sum.txt; git commit -qam "Fix"' } }] },
        { text: 'Fixed 😀.', usage: { input: 100, output: 7 } },
      ],
    })
    await using cp = await startControlPlane({ env: environment(model.url) })
    const folder = mkdtempSync(join(tmpdir(), 'oz-e2e-'))
    try {
      const origin = makeRepository(join(folder, 'origin'), { 'sum.txt': '3\n' })
      const workspace = join(folder, 'workspace')
      mkdirSync(workspace)
      const worker = await cp.connectWorker()
      const runId = await cp.createRun({
        prompt: 'Fix the sum.',
        config: { environment: { source_repos: [{ url: `file://${origin}` }] }, idle_timeout_minutes: 0 },
      })
      const assignment = await worker.claimNext()
      const executionToken = assignment.execution_token ?? ''
      const { exitCode } = await runAgent({
        serverUrl: cp.url,
        executionToken,
        spoolDir: join(folder, 'spool'),
        workingDirectory: workspace,
        log: pino({ level: process.env.OZ_TEST_LOG ?? 'silent' }),
        signal: new AbortController().signal,
        env: { PATH: process.env.PATH, HOME: folder, OZ_EXECUTION_ID: assignment.execution_id },
      })
      expect(exitCode).toBe(0)
      const run = await cp.waitFor(runId, 'SUCCEEDED')
      expect(run.status_message?.message).toContain('Fixed 😀.')
      const events = await cp.eventsOf(runId)
      expect(events.map(({ type }) => type)).not.toContain('event_invalid')
      expect(events.map(({ type }) => type)).toEqual(expect.arrayContaining(['checkpoint', 'usage', 'workspace_saved']))
      const saved = await cp.client.runs.workspace(runId)
      expect(saved.repositories).toMatchObject([{ branch: `oz/${runId}`, commits: 1, files_changed: 1 }])
      expect(model.requests.map((request) => request.wire)).toEqual([wire, wire])
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  },
)
