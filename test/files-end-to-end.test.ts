import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runAgent } from '@openoz/agent'
import type { ListAgentsResponse } from '@openoz/protocol'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import { makeRepository } from './support/agent-fixture.ts'
import { startControlPlane } from './support/control-plane.ts'
import { type ModelRequest, type ScriptedStep, startScriptedModel } from './support/scripted-model.ts'

const skill = '---\nname: deploy\ndescription: Puts it there\n---\nHow to.\n'

test('an agent is given files, plans with them without keeping them as work, and says which skills it saw', async () => {
  const asked: string[] = []
  const handler = ({ body, number }: ModelRequest): ScriptedStep => {
    const text = JSON.stringify(body)
    asked.push(text)
    const path = / bytes\): ([^\\"]+wishes\.txt)/.exec(text)?.[1] ?? ''
    const toolCalls = [
      { name: 'read_files', arguments: { files: [{ path }] } },
      { name: 'report_artifact', arguments: { artifact_type: 'PLAN', title: 'How', content: '# Steps' } },
    ]
    return number === 0 ? { toolCalls } : { text: 'Planned.' }
  }
  await using model = await startScriptedModel({ apiKey: 'sk-test', handler })
  await using cp = await startControlPlane({
    env: { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` },
  })
  const folder = mkdtempSync(join(tmpdir(), 'oz-e2e-'))
  try {
    const origin = makeRepository(join(folder, 'origin'), { '.agents/skills/deploy/SKILL.md': skill })
    const workspace = join(folder, 'workspace')
    mkdirSync(workspace)
    const worker = await cp.connectWorker()
    const runId = await cp.createRun({
      prompt: 'Think of a way.',
      mode: 'plan',
      attachments: [
        { file_name: 'wishes.txt', mime_type: 'text/plain', data: Buffer.from('blue, not green').toString('base64') },
      ],
      config: { environment: { source_repos: [{ url: `file://${origin}` }] }, idle_timeout_minutes: 0 },
    })
    const assignment = await worker.claimNext()
    const { exitCode } = await runAgent({
      serverUrl: cp.url,
      executionToken: assignment.execution_token ?? '',
      spoolDir: join(folder, 'spool'),
      workingDirectory: workspace,
      log: pino({ level: process.env.OZ_TEST_LOG ?? 'silent' }),
      signal: new AbortController().signal,
      env: { PATH: process.env.PATH, HOME: folder, OZ_EXECUTION_ID: assignment.execution_id },
    })
    expect(exitCode).toBe(0)
    const run = await cp.waitFor(runId, 'SUCCEEDED')
    expect(asked[0]).toContain('Change nothing')
    expect(asked[1]).toContain('blue, not green')

    const [plan] = run.artifacts
    if (plan?.artifact_type !== 'PLAN') throw new Error('no plan')
    expect(await cp.client.artifacts.get(plan.data.artifact_uid ?? '')).toMatchObject({ data: { content: '# Steps' } })
    expect(readdirSync(workspace)).toEqual(['origin'])
    const { repositories } = await cp.client.runs.workspace(runId)
    expect(repositories.map(({ dir, files_changed }) => [dir, files_changed])).toEqual([['origin', 0]])

    const { body } = await cp.request<ListAgentsResponse>('GET', '/api/v1/agent')
    expect(body.agents).toMatchObject([
      { name: 'deploy', variants: [{ base_prompt: 'How to.', source: { name: 'origin', worker_host: 'w1' } }] },
    ])
    const types = (await cp.eventsOf(runId)).map(({ type }) => type)
    expect(types).not.toContain('event_invalid')
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
