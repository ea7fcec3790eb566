import type { Problem } from '@openoz/protocol'
import { expect, test } from 'vitest'
import {
  type AgentFixture,
  type AgentFixtureOptions,
  startAgentFixture,
} from '../../../../test/support/agent-fixture.ts'

const wires = [
  { id: 'openai/scripted', wire: 'openai-chat', base_path: '/llm/openai/v1' },
  { id: 'openai/gpt-5', wire: 'openai-responses', base_path: '/llm/openai/v1' },
  { id: 'anthropic/claude-sonnet-4-5', wire: 'anthropic-messages', base_path: '/llm/anthropic/v1' },
] as const

const echo = { toolCalls: [{ name: 'run_command', arguments: { command: 'echo hi' } }] }

function problem(code: string, status: number, more: Partial<Problem> = {}) {
  const body: Problem = {
    type: 'about:blank',
    title: code,
    status,
    detail: `About ${code}.`,
    message: `About ${code}.`,
    error: 'internal_error',
    code,
    retryable: false,
    ...more,
  }
  return { status, body, headers: { 'content-type': 'application/problem+json' } }
}

async function outcomeOf(options: AgentFixtureOptions, check: (agent: AgentFixture) => void = () => {}) {
  await using agent = await startAgentFixture(options)
  const { exitCode } = await agent.run()
  const outcomes = agent.server.eventsOf('turn_outcome')
  expect(outcomes.length).toBe(1)
  const { outcome, message, error_code } = outcomes[0]?.data ?? {}
  expect(exitCode).toBe(outcome === 'SUCCEEDED' ? 0 : 1)
  check(agent)
  const notices = agent.server.eventsOf('notice').map(({ data }) => data.text)
  return { outcome, message, error_code, notices, requests: agent.model.requests }
}

test.each(wires)('a cut stream is asked for again from the last finished step ($wire)', async (model) => {
  const steps = [
    echo,
    { text: ['Half of', ' it'], cut: { afterPieces: 3 } },
    { text: ['Half of', ' it'], cut: { afterPieces: 3, ends: true } },
    { text: 'All of it.' },
  ]
  const { outcome, message, notices, requests } = await outcomeOf({ hello: { model }, steps })
  expect({ outcome, message }).toEqual({ outcome: 'SUCCEEDED', message: 'All of it.' })
  expect(notices.length).toBe(2)
  const { messages, input } = requests[3]?.body ?? {}
  expect(messages ?? input).toEqual(requests[1]?.body.messages ?? requests[1]?.body.input)
})

test.each(wires)('a stream that stands still counts as cut ($wire)', async (model) => {
  const steps = [{ text: ['a', 'b'], hangAfterPieces: 2 }, { text: 'Done.' }]
  const { outcome, notices, requests } = await outcomeOf({
    hello: { model },
    steps,
    limits: { llm_idle_timeout_ms: 300 },
  })
  expect(outcome).toBe('SUCCEEDED')
  expect(notices).toEqual([expect.stringContaining('nothing came for 300 ms')])
  expect(requests[0]?.wasAborted).toBe(true)
})

test.each(wires)('an error inside a stream is retried ($wire)', async (model) => {
  const steps = [{ text: ['a', 'b'], failAfterPieces: 2 }, { failAfterPieces: 0 }, { text: 'Done.' }]
  const { outcome, notices } = await outcomeOf({ hello: { model }, steps })
  expect({ outcome, notices }).toMatchObject({
    outcome: 'SUCCEEDED',
    notices: [/O/, /O/].map(() => expect.any(String)),
  })
})

test('a rate limit is waited for as long as the provider asks, and the run says so', async () => {
  const limited = problem('model_overloaded', 429, { retryable: true })
  const start = performance.now()
  const steps = [{ ...limited, headers: { ...limited.headers, 'retry-after': '1' } }, { text: 'Done.' }]
  const { outcome, notices } = await outcomeOf({ steps })
  expect(outcome).toBe('SUCCEEDED')
  expect(performance.now() - start).toBeGreaterThan(1_000)
  expect(notices).toEqual(['Asking openai/scripted again in 1.0 s: the model is overloaded, or its rate is limited.'])
})

test('a provider that stays overloaded ends the run as ERROR, without waiting longer than there is patience', async () => {
  const handler = () => ({ ...problem('model_overloaded', 529, { retryable: true }), headers: { 'retry-after': '60' } })
  expect(await outcomeOf({ handler, limits: { llm_retry_for_ms: 500 } })).toMatchObject({
    outcome: 'ERROR',
    error_code: 'model_overloaded',
    message: 'About model_overloaded.',
  })
})

test('a provider that cannot be reached ends the run as ERROR', async () => {
  const handler = () => problem('model_provider_unreachable', 502, { retryable: true })
  expect(await outcomeOf({ handler, limits: { llm_retry_for_ms: 300 } })).toMatchObject({
    outcome: 'ERROR',
    error_code: 'model_provider_unreachable',
  })
})

test.each([
  ['model_provider_missing', 400],
  ['model_provider_rejected', 502],
  ['model_unknown', 400],
  ['model_request_rejected', 400],
  ['model_quota_exhausted', 429],
])('%s ends the run as FAILED at once', async (code, status) => {
  const { outcome, error_code, message, requests } = await outcomeOf({ handler: () => problem(code, status) })
  expect({ outcome, error_code, message }).toEqual({ outcome: 'FAILED', error_code: code, message: `About ${code}.` })
  expect(requests.length).toBe(1)
})

test.each([
  [401, 'FAILED', 'model_provider_rejected'],
  [404, 'FAILED', 'model_request_rejected'],
  [503, 'ERROR', 'model_provider_unreachable'],
])('an answer %i that is not the gateway’s is understood too', async (status, outcome, error_code) => {
  const handler = () => ({ status, body: { error: { message: 'no' } } })
  expect(await outcomeOf({ handler, limits: { llm_retry_for_ms: 200 } })).toMatchObject({ outcome, error_code })
})

test.each(wires)('an empty answer is asked for once more, and then the run fails ($wire)', async (model) => {
  const empty = { hello: { model }, steps: [{}, { text: 'Done.' }] }
  expect(await outcomeOf(empty)).toMatchObject({
    outcome: 'SUCCEEDED',
    notices: [expect.stringContaining('once more')],
  })
  const cut = { finish: 'length' as const, reasoning: 'Hmm' }
  expect(await outcomeOf({ hello: { model }, steps: [cut, cut] })).toMatchObject({
    outcome: 'FAILED',
    error_code: 'model_answer_empty',
  })
})

test('an answer that its provider refuses for its content fails', async () => {
  const steps = [{ finish: 'content_filter' as const }]
  expect(await outcomeOf({ steps })).toMatchObject({ outcome: 'FAILED', error_code: 'model_content_refused' })
})

test('a turn that goes on and on ends at its limit', async () => {
  const { outcome, error_code, requests } = await outcomeOf({ handler: () => echo, limits: { max_steps: 3 } })
  expect({ outcome, error_code }).toEqual({ outcome: 'FAILED', error_code: 'turn_limit_reached' })
  expect(requests.length).toBe(3)
})

test('calls that make no sense become results that the model reads', async () => {
  const calls = [
    { name: 'no_such_tool', arguments: {} },
    { name: 'run_command', arguments: { cmd: 'x' } },
    { name: 'run_command', arguments: '{"command": "x' },
    { name: 'edit_files', arguments: { edits: [{ type: 'delete', path: 'absent' }] } },
  ]
  for (const model of wires) {
    const { outcome, requests } = await outcomeOf({
      hello: { model },
      steps: [{ toolCalls: calls }, { text: 'Sorry.' }],
    })
    expect(outcome).toBe('SUCCEEDED')
    const text = JSON.stringify(requests[1]?.body)
    expect(text).toContain('There is no tool no_such_tool')
    expect(text).toContain('The arguments do not fit')
    expect(text).toContain('absent does not exist')
  }
})

test('a run without a model says why', async () => {
  const hello = { model: null, model_problem: 'No provider. Set ANTHROPIC_API_KEY.' }
  expect(await outcomeOf({ hello })).toMatchObject({
    outcome: 'FAILED',
    error_code: 'model_provider_missing',
    message: 'No provider. Set ANTHROPIC_API_KEY.',
  })
})

test('a harness that is not there is named before anything is prepared', async () => {
  const hello = { config: { harness: { type: 'claude' }, environment: { source_repos: [{ url: 'file:///absent' }] } } }
  expect(await outcomeOf({ hello })).toMatchObject({ outcome: 'FAILED', error_code: 'harness_unknown' })
})
