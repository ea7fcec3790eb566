import { expect, test } from 'vitest'
import { type AgentFixtureOptions, startAgentFixture } from '../../../../test/support/agent-fixture.ts'

async function outcomeOf(options: AgentFixtureOptions) {
  await using agent = await startAgentFixture(options)
  expect((await agent.run()) && agent.model.requests.length).toBe(0)
  return agent.server.eventsOf('turn_outcome')[0]?.data
}

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
