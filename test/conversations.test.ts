import {
  type AgentEvent,
  agentChannelPaths,
  type Conversation,
  type NextTurnResponse,
  readAnswer,
  type SessionEvent,
} from '@openoz/protocol'
import { conversationResponse } from '@openoz/protocol/schemas'
import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { addMember, addTeam } from './support/people.ts'
import type { TestAgent } from './support/test-agent.ts'

const says = (messageId: string, text: string): AgentEvent => ({
  type: 'agent_message_chunk',
  data: { messageId, content: { type: 'text', text } },
})
const thinks = (messageId: string, text: string): AgentEvent => ({
  type: 'agent_thought_chunk',
  data: { messageId, content: { type: 'text', text } },
})
const calls = (toolCallId: string, command: string): AgentEvent => ({
  type: 'tool_call',
  data: {
    toolCallId,
    tool: 'run_command',
    title: command,
    kind: 'execute',
    status: 'in_progress',
    rawInput: { command },
  },
})
const answers = (toolCallId: string, text: string): AgentEvent => ({
  type: 'tool_call_update',
  data: {
    toolCallId,
    status: 'completed',
    content: [{ type: 'content', content: { type: 'text', text } }],
    rawOutput: { status: 'complete', exit_code: 0 },
  },
})

async function conversationOf(cp: ControlPlane, runId: string): Promise<Conversation> {
  return conversationResponse.parse(await cp.client.runs.conversation(runId))
}

/** `user: hello`, `assistant: text, action`: what was said, in short. */
function story(conversation: Conversation): string[][] {
  return conversation.steps.map((step) =>
    step.messages.map(({ role, content }) => `${role}: ${content.map((block) => textOf(block)).join(', ')}`),
  )
}

function textOf(block: Conversation['steps'][number]['messages'][number]['content'][number]): string {
  if (block.type === 'text') return block.text
  if (block.type === 'event') return `${block.name} ${block.data.text ?? ''}`.trim()
  return block.type === 'action' ? `${block.name} ${JSON.stringify(block.input)}` : `${block.name} ${block.state}`
}

test('a turn is a step: what was asked, said, thought, called and answered, with its outcome', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent({ prompt: 'Fix it.\nPlease.' })
  await agent.send(
    thinks('m1', 'Hm, '),
    thinks('m1', 'let me see.'),
    says('m1', 'I look '),
    says('m1', 'first.'),
    calls('c1', 'ls'),
    { type: 'terminal_output', data: { toolCallId: 'c1', text: 'a\n' } },
    answers('c1', 'a\n'),
    { type: 'notice', data: { level: 'info', text: 'nothing special' } },
    says('m2', 'Done.'),
    calls('c2', 'sleep 9'),
  )
  await agent.end('SUCCEEDED', 'All is well.')
  const conversation = await conversationOf(cp, runId)
  expect(conversation.conversation_id).toBe((await cp.client.runs.get(runId)).conversation_id)
  expect(story(conversation)).toEqual([
    [
      'user: Fix it.\nPlease.',
      'assistant: agent_reasoning Hm, let me see., I look first., run_command {"command":"ls"}',
      'tool: run_command completed',
      'system: notice nothing special',
      'assistant: Done., run_command {"command":"sleep 9"}',
      'tool: run_command denied',
    ],
  ])
  const [step] = conversation.steps
  expect(step).toMatchObject({ id: agent.turnId, description: 'Fix it.', summary: 'All is well.', steps: [] })
  expect(Date.parse(step?.completed_at ?? '')).toBeGreaterThanOrEqual(Date.parse(step?.started_at ?? ''))
  expect(step?.messages[1]).toMatchObject({ message_ids: ['m1'] })
  expect(step?.messages[2]?.content[0]).toEqual({
    type: 'action_result',
    action_id: 'c1',
    category: 'command',
    name: 'run_command',
    state: 'completed',
    output: { output: 'a\n', status: 'complete', exit_code: 0 },
  })
})

test('a call that failed is told from one that was stopped', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const failed = { status: 'failed' as const }
  await agent.send(
    calls('c1', 'false'),
    { type: 'tool_call_update', data: { toolCallId: 'c1', ...failed } },
    calls('c2', 'sleep 9'),
    { type: 'tool_call_update', data: { toolCallId: 'c2', ...failed, cancelled: true } },
  )
  const { steps } = await conversationOf(cp, runId)
  const blocks = steps.flatMap((step) => step.messages.flatMap(({ content }) => content))
  const states = blocks.flatMap((block) => (block.type === 'action_result' ? [block.state] : []))
  expect(states).toEqual(['failed', 'denied'])
})

test('an answer that was cut off and asked for again is not in it, whatever was said in between', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent({ prompt: 'greet' })
  await agent.send(thinks('t1', 'Hm.'), says('m1', 'Hello '))
  const { message_id: steering } = await cp.client.runs.followUp(runId, { message: 'nicely', mode: 'steer' })
  await agent.send(
    says('m1', 'brave '),
    { type: 'answer_withdrawn', data: { message_ids: ['t1', 'm1'] } },
    { type: 'message_delivered', data: { message_id: steering } },
    says('m2', 'Hello.'),
  )
  await endWith(agent, [steering])
  expect(story(await conversationOf(cp, runId))[0]).toEqual(['user: greet', 'user: nicely', 'assistant: Hello.'])
})

test('steering stands inside its turn, a queued message begins the next one, and a message that came too late does too', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent({ prompt: 'one' })
  const say = (message: string, mode?: 'steer') => cp.client.runs.followUp(runId, { message, ...(mode && { mode }) })
  await agent.send(says('m1', 'working'))
  await say('two')
  const { message_id: taken } = await say('to the left', 'steer')
  await agent.send({ type: 'message_delivered', data: { message_id: taken } }, says('m2', 'turning left'))
  await say('too late', 'steer')
  await endWith(agent, [taken])
  await perform(agent, 'second')
  await perform(agent, 'third')
  const conversation = await conversationOf(cp, runId)
  expect(story(conversation)).toEqual([
    ['user: one', 'assistant: working', 'user: to the left', 'assistant: turning left'],
    ['user: two', 'assistant: second'],
    ['user: too late', 'assistant: third'],
  ])
  expect(conversation.steps.map(({ description }) => description)).toEqual(['one', 'two', 'too late'])
})

async function endWith(agent: TestAgent, taken: string[]): Promise<void> {
  const data = { turn_id: agent.turnId, outcome: 'SUCCEEDED' as const, message: 'done', taken_message_ids: taken }
  await agent.send({ type: 'turn_outcome', data })
}

/** Takes the next turn, says one thing and ends it. */
async function perform(agent: TestAgent, text: string): Promise<void> {
  const { turn } = await nextTurn(agent, { isLast: false })
  agent.turnId = turn?.turn_id ?? ''
  await agent.send(says(`m of ${agent.turnId}`, text))
  await endWith(agent, [])
}

async function nextTurn(agent: TestAgent, { isLast }: { isLast: boolean }): Promise<NextTurnResponse> {
  const answer = await agent.request(agentChannelPaths.nextTurn, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ is_last: isLast }),
  })
  return readAnswer<NextTurnResponse>(answer)
}

test('a cancel ends every turn that was asked until then; a later message begins anew', async () => {
  await using cp = await startControlPlane()
  const runId = await cp.createRun({ prompt: 'one', config: { worker_host: 'nobody' } })
  await cp.client.runs.followUp(runId, { message: 'two' })
  await cp.client.runs.cancel(runId)
  await cp.client.runs.followUp(runId, { message: 'three' })
  const { steps } = await conversationOf(cp, runId)
  expect(steps.map(({ description, summary }) => [description, summary])).toEqual([
    ['one', 'Cancelled by user.'],
    ['two', 'Cancelled by user.'],
    ['three', undefined],
  ])
})

test('a conversation has the turns of all its runs that one may see', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent({ prompt: 'one', team: false })
  await agent.end('SUCCEEDED')
  await nextTurn(agent, { isLast: true })
  const { conversation_id } = await cp.client.runs.get(runId)
  await cp.createRun({ prompt: 'two', conversation_id, config: { worker_host: 'nobody' } })
  const read = async (key: string | null = cp.adminKey, id = conversation_id) => {
    const { status, body } = await cp.request<Conversation & { code: string }>(
      'GET',
      `/api/v1/agent/conversations/${id}`,
      { key },
    )
    return status === 200 ? conversationResponse.parse(body).steps.map(({ description }) => description) : body.code
  }
  expect(await read()).toEqual(['one', 'two'])
  expect(await read((await addMember(cp, 'member')).key)).toEqual(['two'])
  expect(await read((await addTeam(cp, 'strangers')).key)).toBe('conversation_not_found')
  expect(await read(null)).toBe('api_key_missing')
  expect(await read(cp.adminKey, 'no-uuid')).toBe('conversation_not_found')
})

test('a log of many pages is read to its end, in order', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  for (let batch = 0; batch < 9; batch++)
    await agent.send(
      ...Array.from({ length: 50 }, (_, index) => calls(`c${batch}-${index}`, `echo ${batch}-${index}`)),
      ...Array.from({ length: 50 }, (_, index) => answers(`c${batch}-${index}`, 'x'.repeat(20_000))),
    )
  const { steps } = await conversationOf(cp, runId)
  const blocks = steps.flatMap((step) => step.messages.flatMap(({ content }) => content))
  expect(blocks.filter(({ type }) => type === 'action')).toHaveLength(450)
  expect(blocks.flatMap((block) => (block.type === 'action_result' ? [block.action_id] : []))).toEqual(
    Array.from({ length: 450 }, (_, index) => `c${Math.floor(index / 50)}-${index % 50}`),
  )
  // None is so large that a reader could not take it.
  const sizes = steps.flatMap((step) => step.messages.map((message) => JSON.stringify(message).length))
  expect(Math.max(...sizes)).toBeLessThan(1_100_000)

  const transcript = await fetch(await transcriptLink(cp, runId))
  const { events } = (await transcript.json()) as { events: SessionEvent[] }
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1))
  expect(events.length).toBeGreaterThan(900)
})

async function transcriptLink(cp: ControlPlane, runId: string, key = cp.adminKey): Promise<string> {
  const answer = await fetch(`${cp.url}/api/v1/agent/runs/${runId}/transcript`, {
    redirect: 'manual',
    headers: { authorization: `Bearer ${key}` },
  })
  expect(answer.status).toBe(302)
  expect(await answer.text()).toBe('')
  return answer.headers.get('location') ?? ''
}

test('a transcript is reached by a link that needs no key, for a quarter of an hour, for this run alone', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent({ prompt: 'say hi', title: 'Greeting' })
  await agent.say('hi')
  await agent.end('SUCCEEDED')
  const link = await transcriptLink(cp, runId)
  expect(link.startsWith(`${cp.url}/api/v1/agent/transcripts/${runId}?`)).toBe(true)
  const answer = await fetch(link)
  expect(answer.headers.get('content-type')).toBe('application/json')
  expect(await answer.json()).toEqual({
    run_id: runId,
    conversation_id: (await cp.client.runs.get(runId)).conversation_id,
    title: 'Greeting',
    prompt: 'say hi',
    events: await cp.eventsOf(runId),
  })

  // Another replica has the same key.
  const other = await cp.addServer()
  expect((await fetch(link.replace(cp.url, other.url))).status).toBe(200)

  const another = await cp.createRun()
  const broken = [
    link.replace(runId, another),
    link.replace(/expires=\d+/, 'expires=99999999999'),
    link.replace(/signature=./, (text) => `${text.slice(0, -1)}${text.endsWith('A') ? 'B' : 'A'}`),
    link.replace(/\?.*/, ''),
    link.replace(/&signature.*/, ''),
  ]
  for (const wrong of broken) {
    const refused = await fetch(wrong)
    expect([wrong, refused.status]).toEqual([wrong, 403])
    expect(await refused.json()).toMatchObject({ code: 'link_invalid' })
  }
  await cp.advanceDatabaseClock({ seconds: 14 * 60 })
  expect((await fetch(link)).status).toBe(200)
  await cp.advanceDatabaseClock({ seconds: 2 * 60 })
  expect((await fetch(link)).status).toBe(403)
})
