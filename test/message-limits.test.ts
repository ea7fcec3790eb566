import { type FollowUpMode, isApiError, maxTurnMessages } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'

test('messages to the turn at work count until they are taken up', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const say = (mode: FollowUpMode) => cp.client.runs.followUp(runId, { message: 'and this', mode })
  const said = await Promise.all(Array.from({ length: 98 }, () => say('steer')))
  await say('queue')
  for (const mode of ['steer', 'interrupt', 'queue'] as const)
    await expect(say(mode)).rejects.toSatisfy((error) => isApiError(error, 'follow_up_queue_full'))

  const blob_id = await agent.putBlob('state')
  const taken_message_ids = said.slice(0, 2).map(({ message_id }) => message_id)
  await agent.send({ type: 'checkpoint', data: { harness: 'oz', format: 't', step: 1, blob_id, taken_message_ids } })
  await say('steer')
  await say('interrupt')
  await expect(say('steer')).rejects.toSatisfy((error) => isApiError(error, 'follow_up_queue_full'))
})

test('what is said to a turn beyond what its outcome can name is a turn of its own', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  await cp.db.query(
    `insert into messages (id, run_id, turn_id, mode, text, author, asked_seq, taken_at)
     select gen_random_uuid(), $1, $2, 'steer', 'taken up', 'somebody', 1, db_now() from generate_series(1, $3)`,
    [runId, agent.turnId, maxTurnMessages - 1],
  )
  const last = await cp.client.runs.followUp(runId, { message: 'the last', mode: 'steer' })
  expect(last).toMatchObject({ mode: 'steer', turn: 1 })
  const beyond = await cp.client.runs.followUp(runId, { message: 'one more', mode: 'steer' })
  expect(beyond).toMatchObject({ mode: 'queue', turn: 2 })

  const rows = await cp.db.query<{ id: string }>('select id from messages')
  const taken_message_ids = rows.map(({ id }) => id)
  expect(taken_message_ids).toHaveLength(maxTurnMessages)
  const outcome = { turn_id: agent.turnId, outcome: 'SUCCEEDED' as const, message: 'done' }
  await agent.send({ type: 'turn_outcome', data: { ...outcome, taken_message_ids } })
  expect((await agent.nextTurn()).turn).toMatchObject({ number: 2, message: 'one more' })
})
