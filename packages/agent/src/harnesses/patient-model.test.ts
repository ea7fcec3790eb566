import { createServer } from 'node:net'
import { AppError } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { type HarnessFixtureOptions, startHarnessFixture, turn } from '../../../../test/support/harness-fixture.ts'
import type { ModelGateway } from './harness.ts'

type Fetch = ModelGateway['fetch']

/** `between` stands before the model, with the number of the request, from 1. */
async function outcomeOf(
  options: HarnessFixtureOptions,
  between: (number: number, ask: () => ReturnType<Fetch>, init: RequestInit) => ReturnType<Fetch> = (_, ask) => ask(),
) {
  await using oz = await startHarnessFixture(options)
  let number = 0
  const ask: Fetch = (path, init) => fetch(oz.model.url + path, init)
  const session = await oz.open({
    gateway: { token: 'token', fetch: (path, init) => between(++number, () => ask(path, init), init) },
  })
  const start = performance.now()
  const { outcome, errorCode } = await session.prompt(turn('go'), new AbortController().signal)
  return { outcome, errorCode, tookMs: performance.now() - start, waits: oz.eventsOf('model_wait'), events: oz.events }
}

const hello = { text: 'Hello.' }
const busy = (retryAfter: string) => ({
  status: 429,
  headers: { 'retry-after': retryAfter },
  body: { error: { message: 'slow down' } },
})
const delay = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

test.each(['0', new Date(0).toUTCString()])('a provider that asks for no pause (%s) gets one', async (retryAfter) => {
  const limits = { llm_retry_for_ms: 2_000 }
  const { outcome, errorCode, waits } = await outcomeOf({ limits, handler: () => busy(retryAfter) })
  expect({ outcome, errorCode }).toEqual({ outcome: 'ERROR', errorCode: 'model_overloaded' })
  expect(waits.length).toBeLessThan(30)
})

test.each(['database_unreachable', 'database_down', 'database_full', 'server_starting', 'server_draining'])(
  'a control plane that says %s is waited for without end',
  async (code) => {
    const body = { title: 'No', detail: 'Not now.', code, status: 503 }
    const away = { status: 503, body, headers: { 'x-oz-error-code': code, 'x-should-retry': 'true' } }
    const limits = { llm_retry_for_ms: 0 }
    const { outcome, waits } = await outcomeOf({ limits, steps: [away, away, hello] })
    expect(outcome).toBe('SUCCEEDED')
    expect(waits.map(({ reason }) => reason.includes('control plane is not ready'))).toEqual([true, true])
  },
)

test('the time that the control plane was away is not the provider’s', async () => {
  const limits = { llm_retry_for_ms: 300 }
  const { outcome, waits } = await outcomeOf({ limits, steps: [hello] }, async (number, ask) => {
    if (number <= 2) {
      await delay(number === 2 ? 400 : 0)
      throw new AppError('server_unreachable', { url: 'http://test', problem: 'gone' })
    }
    if (number === 3) throw new TypeError('fetch failed')
    return ask()
  })
  expect(outcome).toBe('SUCCEEDED')
  expect(waits.length).toBe(3)
})

test('an answer that comes is no silence, however long it takes and however often it is cut', async () => {
  const cut = { text: ['a', 'b', 'c', 'd', 'e', 'f'], pieceDelayMs: 100, cut: { afterPieces: 6 } }
  const limits = { llm_retry_for_ms: 500 }
  const { outcome, waits } = await outcomeOf({ limits, steps: [cut, cut, hello] })
  expect(outcome).toBe('SUCCEEDED')
  expect(waits.length).toBe(2)
})

test('a model that does not even begin to answer counts as cut after its time of silence, and patience ends', async () => {
  const limits = { llm_idle_timeout_ms: 200, llm_retry_for_ms: 10_000 }
  let wasStopped = false
  const once = await outcomeOf({ limits, steps: [hello] }, (number, ask, { signal }) => {
    if (number > 1) return ask()
    return new Promise((_, reject) => {
      signal?.addEventListener('abort', () => {
        wasStopped = true
        reject(signal.reason)
      })
    })
  })
  expect(once).toMatchObject({
    outcome: 'SUCCEEDED',
    waits: [{ reason: expect.stringContaining('nothing came for 200') }],
  })
  expect(once.tookMs).toBeGreaterThanOrEqual(200)
  expect(wasStopped).toBe(true)

  const never = { delayMs: 1_000, ...hello }
  const always = await outcomeOf({ limits: { ...limits, llm_retry_for_ms: 300 }, handler: () => never })
  expect(always).toMatchObject({ outcome: 'ERROR', errorCode: 'model_provider_unreachable' })
  // The silence of the second try, and of the third one.
  expect(always.waits.length).toBeLessThanOrEqual(2)
})

test('a connection that breaks before the head of an answer is asked over again', async () => {
  const broken = createServer((socket) => socket.destroy())
  await new Promise<void>((resolve) => broken.listen(0, '127.0.0.1', resolve))
  const address = broken.address()
  const port = typeof address === 'object' ? address?.port : undefined
  const { outcome, waits } = await outcomeOf({ steps: [hello] }, (number, ask, init) =>
    number === 1 ? fetch(`http://127.0.0.1:${port}/`, init) : ask(),
  )
  await new Promise((resolve) => broken.close(resolve))
  expect(outcome).toBe('SUCCEEDED')
  expect(waits.length).toBe(1)
})

test('what viewers were shown of an answer that is asked for again is withdrawn, and nothing else', async () => {
  const cut = { reasoning: 'Hm.', text: ['Hello ', 'brave ', 'new '], pieceDelayMs: 20, cut: { afterPieces: 3 } }
  const short = { text: 'Hello brave', finish: 'length' as const }
  for (const [steps, shown] of [
    [[cut, { text: 'Hello.' }], 'Hello.'],
    [[short, { text: 'Hello.' }], 'Hello.'],
    // Nobody asks again: these are its last words.
    [[short, short], 'Hello brave'],
  ] as const) {
    const { events } = await outcomeOf({ steps: [...steps] })
    const withdrawn = events.flatMap(({ type, data }) => (type === 'answer_withdrawn' ? data.message_ids : []))
    expect(withdrawn.length).toBeGreaterThan(0)
    const chunks = events.flatMap((event) =>
      event.type === 'agent_message_chunk' || event.type === 'agent_thought_chunk' ? [event.data] : [],
    )
    expect(withdrawn.every((id) => chunks.some(({ messageId }) => messageId === id))).toBe(true)
    const left = chunks.filter(({ messageId }) => !withdrawn.includes(messageId))
    expect(left.map(({ content }) => content.text).join('')).toBe(shown)
    expect(events.filter(({ type }) => type === 'answer_withdrawn').length).toBe(1)
  }
})
