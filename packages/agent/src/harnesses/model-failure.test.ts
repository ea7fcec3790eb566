import { AppError, errorSpecs, type PlatformErrorCode, type TurnOutcome } from '@openoz/protocol'
import { expect, test } from 'vitest'
import {
  type HarnessFixtureOptions,
  modelAccesses,
  startHarnessFixture,
  turn,
} from '../../../../test/support/harness-fixture.ts'
import type { ScriptedStep } from '../../../../test/support/scripted-model.ts'

async function outcomeOf(options: HarnessFixtureOptions) {
  await using oz = await startHarnessFixture(options)
  const session = await oz.open()
  const result = await session.prompt(turn('go'), new AbortController().signal)
  return {
    ...result,
    waits: oz.eventsOf('model_wait'),
    notices: oz.eventsOf('notice').map(({ text }) => text),
    requests: oz.model.requests,
    events: oz.events,
  }
}

/** The gateway's refusal, in the shape of the provider whose wire it is. */
function refusal(code: string, status: number, headers: Record<string, string> = {}): ScriptedStep {
  const body = { error: { message: `About ${code}.`, type: 'error', code } }
  return { status, body, headers: { 'x-oz-error-code': code, ...headers } }
}

const hello = { text: 'Hello.' }

/** Rows of the reference's table of outcomes that begin with a model, and ours beside them. */
const outcomes: [what: string, step: ScriptedStep, TurnOutcome, PlatformErrorCode][] = [
  ['quota exhausted', refusal('model_quota_exhausted', 429), 'FAILED', 'insufficient_credits'],
  ['model overloaded', refusal('model_overloaded', 429), 'ERROR', 'resource_unavailable'],
  ['model overloaded, 529', refusal('model_overloaded', 529), 'ERROR', 'resource_unavailable'],
  ['provider down', refusal('model_provider_unreachable', 502), 'ERROR', 'internal_error'],
  ['provider failed', refusal('model_provider_failed', 502), 'ERROR', 'internal_error'],
  ['invalid key', refusal('model_provider_rejected', 502), 'FAILED', 'authentication_required'],
  ['no provider', refusal('model_provider_missing', 400), 'FAILED', 'integration_not_configured'],
  ['unknown model', refusal('model_unknown', 400), 'FAILED', 'invalid_request'],
  ['request refused', refusal('model_request_rejected', 400), 'FAILED', 'invalid_request'],
  ['code of a newer gateway', refusal('of_tomorrow', 400), 'FAILED', 'invalid_request'],
  ['content refused', refusal('model_content_refused', 422), 'FAILED', 'content_policy_violation'],
  ['content refused by its answer', { finish: 'content_filter', text: 'I' }, 'FAILED', 'content_policy_violation'],
  ['window full', refusal('context_window_exceeded', 400), 'FAILED', 'internal_error'],
  ['body too large', refusal('body_too_large', 413), 'FAILED', 'internal_error'],
  ['429 of nobody', { status: 429, body: {} }, 'ERROR', 'resource_unavailable'],
  ['529 of nobody', { status: 529, body: 'x' }, 'ERROR', 'resource_unavailable'],
  ['503 of nobody', { status: 503, body: {} }, 'ERROR', 'internal_error'],
  ['401 of nobody', { status: 401, body: {} }, 'FAILED', 'authentication_required'],
  ['403 of nobody', { status: 403, body: {} }, 'FAILED', 'authentication_required'],
  ['404 of nobody', { status: 404, body: {} }, 'FAILED', 'invalid_request'],
  ['402 of nobody', { status: 402, body: {} }, 'FAILED', 'insufficient_credits'],
  [
    'OpenAI’s quota',
    { status: 429, body: { error: { code: 'insufficient_quota', message: 'no' } } },
    'FAILED',
    'insufficient_credits',
  ],
  [
    'Azure’s filter',
    { status: 400, body: { error: { code: 'content_filter', message: 'no' } } },
    'FAILED',
    'content_policy_violation',
  ],
  ['empty answer', {}, 'FAILED', 'internal_error'],
  ['answer cut by its length', { text: 'And so', finish: 'length' }, 'FAILED', 'internal_error'],
  ['stream always cut', { text: 'a', cut: { afterPieces: 1 } }, 'ERROR', 'internal_error'],
  ['silence', { text: 'a', hangAfterPieces: 1 }, 'ERROR', 'internal_error'],
]

test.each(outcomes)('%s', async (_, step, outcome, platform) => {
  const limits = { llm_retry_for_ms: 150, llm_idle_timeout_ms: 120 }
  const { errorCode = '', ...result } = await outcomeOf({ handler: () => step, limits })
  expect({ outcome: result.outcome, platform: errorSpecs[errorCode as keyof typeof errorSpecs].platform }).toEqual({
    outcome,
    platform,
  })
  const code = step.headers?.['x-oz-error-code']
  if (code !== undefined && step.status !== 413 && code !== 'context_window_exceeded')
    expect(result.message).toContain(`About ${code}.`)
  expect(result.message).not.toBe('')
})

test.each([
  ['model_provider_rejected', 401, 'refused the control plane’s key (401)', 'Set a valid key'],
  ['model_provider_failed', 500, 'failed (500): bad', 'Try again later'],
  ['model_overloaded', 529, 'limits the rate (529)', 'another model'],
  ['model_quota_exhausted', 429, 'no credit left', 'Add credit'],
  ['model_request_rejected', 400, 'refused the request (400): bad', 'limits'],
  ['model_unknown', 404, '(404): bad', 'oz model list'],
])('a provider’s bare words are put in a sentence that says who refused, and what to do (%s)', async (...row) => {
  const [code, status, what, remedy] = row
  const step = { status, body: { error: { message: 'bad' } }, headers: { 'x-oz-error-code': code } }
  const { message, errorCode } = await outcomeOf({ handler: () => step, limits: { llm_retry_for_ms: 0 } })
  expect(errorCode).toBe(code)
  expect(message).toMatch(/^The (account at the )?provider \S+ /)
  for (const words of [what, remedy, 'bad']) expect(message).toContain(words)
})

test('what the gateway says itself is passed on as it is', async () => {
  const own = new AppError('model_unknown', { modelId: 'x/y', usable: 'x/z' }).message
  const step = { status: 404, body: { error: { message: own } }, headers: { 'x-oz-error-code': 'model_unknown' } }
  expect((await outcomeOf({ steps: [step] })).message).toBe(own)
})

test.each(modelAccesses)('a refusal is understood on every wire ($wire)', async (access) => {
  const limits = { llm_retry_for_ms: 0 }
  const steps = [refusal('model_provider_rejected', 502)]
  expect(await outcomeOf({ access, limits, steps })).toMatchObject({
    outcome: 'FAILED',
    errorCode: 'model_provider_rejected',
  })
  const busy = [refusal('model_overloaded', 503)]
  expect(await outcomeOf({ access, limits, steps: busy })).toMatchObject({
    outcome: 'ERROR',
    errorCode: 'model_overloaded',
  })
})

test('what the gateway says about trying again counts more than its code', async () => {
  const limits = { llm_retry_for_ms: 5_000 }
  const no = refusal('model_overloaded', 429, { 'x-should-retry': 'false' })
  expect(await outcomeOf({ limits, steps: [no] })).toMatchObject({
    outcome: 'ERROR',
    errorCode: 'model_overloaded',
    waits: [],
  })
  const yes = refusal('model_unknown', 400, { 'x-should-retry': 'true', 'retry-after-ms': '10' })
  expect(await outcomeOf({ limits, steps: [yes, hello] })).toMatchObject({ outcome: 'SUCCEEDED' })
})

test('a rate limit is waited for as long as the provider asks, and the run says until when', async () => {
  const start = Date.now()
  const { outcome, waits } = await outcomeOf({
    steps: [refusal('model_overloaded', 429, { 'retry-after': '1' }), hello],
  })
  expect(outcome).toBe('SUCCEEDED')
  expect(Date.now() - start).toBeGreaterThanOrEqual(1_000)
  expect(waits).toEqual([{ attempt: 1, reason: expect.stringContaining('overloaded'), until: expect.any(String) }])
  const until = Date.parse(waits[0]?.until ?? '')
  expect(until).toBeGreaterThanOrEqual(start + 1_000)
  expect(until).toBeLessThan(Date.now() + 100)
})

test('nobody waits longer than there is patience', async () => {
  const start = performance.now()
  const step = refusal('model_overloaded', 529, { 'retry-after': '60' })
  expect(await outcomeOf({ steps: [step], limits: { llm_retry_for_ms: 500 } })).toMatchObject({
    outcome: 'ERROR',
    waits: [],
  })
  expect(performance.now() - start).toBeLessThan(5_000)
})

test.each(modelAccesses)('a stream that stands still counts as cut, and is asked for again ($wire)', async (access) => {
  const steps = [{ text: ['a', 'b', 'c'], hangAfterPieces: 2 }, { text: ['a', 'b'], failAfterPieces: 2 }, hello]
  const limits = { llm_idle_timeout_ms: 200 }
  const { outcome, waits, requests } = await outcomeOf({ access, steps, limits })
  expect(outcome).toBe('SUCCEEDED')
  expect(waits[0]?.reason).toContain('nothing came for 200 ms')
  expect(waits.length).toBe(2)
  expect(requests[0]?.wasAborted).toBe(true)
})

test('a model that streams a byte at a time is slow, not gone', async () => {
  await using oz = await startHarnessFixture({ steps: [{ text: 'slowly' }], limits: { llm_idle_timeout_ms: 150 } })
  const session = await oz.open()
  const start = performance.now()
  oz.slowNext(1)
  const result = await session.prompt(turn('go'), new AbortController().signal)
  expect(result).toMatchObject({ outcome: 'SUCCEEDED', message: 'slowly' })
  expect(performance.now() - start).toBeGreaterThan(600)
  expect(oz.eventsOf('model_wait')).toEqual([])
})

test.each(modelAccesses)(
  'an empty answer, or one cut by its length, is asked for once more ($wire)',
  async (access) => {
    const cut = { text: 'Once upon', finish: 'length' as const }
    const cutCall = { toolCalls: [{ name: 'run_command', arguments: '{"command": "ec' }], finish: 'length' as const }
    for (const first of [{}, cut, cutCall] as ScriptedStep[]) {
      const again = await outcomeOf({ access, steps: [first, hello] })
      expect(again).toMatchObject({
        outcome: 'SUCCEEDED',
        message: 'Hello.',
        notices: [expect.stringContaining('once more')],
      })
      expect(again.events.some(({ type }) => type === 'tool_call')).toBe(false)
      expect(JSON.stringify(again.requests[1]?.body).includes('shorter')).toBe(
        first !== again.requests[0] && first.finish === 'length',
      )
      const twice = await outcomeOf({ access, steps: [first, first] })
      expect(twice).toMatchObject({ outcome: 'FAILED' })
      expect(twice.errorCode).toBe(first.finish === 'length' ? 'model_answer_cut' : 'model_answer_empty')
    }
  },
)

test('an answer that never stops is cut, whatever its provider does', async () => {
  const endless = { text: Array.from({ length: 200 }, () => 'more and more '.repeat(2_000)) }
  const { outcome, errorCode, requests } = await outcomeOf({ handler: () => endless })
  expect({ outcome, errorCode }).toEqual({ outcome: 'FAILED', errorCode: 'model_answer_cut' })
  expect(requests.length).toBe(2)
})

test('a model that cannot give as long an answer as allowed is asked for a shorter one', async () => {
  const message = 'max_tokens is too large: 4096. This model supports at most 1000 completion tokens.'
  const { outcome, requests } = await outcomeOf({ steps: [{ status: 400, body: { error: { message } } }, hello] })
  expect(outcome).toBe('SUCCEEDED')
  expect(requests.map(({ body }) => body.max_tokens)).toEqual([4096, 1000])
  const always = await outcomeOf({ handler: () => ({ status: 400, body: { error: { message } } }) })
  expect(always.requests.length).toBe(2)
  expect({ ...always, requests: [] }).toMatchObject({ outcome: 'FAILED', errorCode: 'model_request_rejected' })
})

test('a problem of the control plane itself is understood', async () => {
  const body = { title: 'No', detail: 'About it.', message: 'About it.', code: 'model_quota_exhausted', status: 429 }
  expect(await outcomeOf({ steps: [{ status: 429, body }] })).toMatchObject({
    outcome: 'FAILED',
    errorCode: 'model_quota_exhausted',
    message: expect.stringContaining('About it.'),
  })
})
