import { expect, test } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'

/** What a next execution is told, after one that saved its workspace or not, had a checkpoint, and then failed. */
async function nextHello({ isSaved, isWorkSaved }: { isSaved: boolean; isWorkSaved?: boolean }) {
  await using cp = await startControlPlane()
  const { agent, runId, worker, assignment } = await cp.startAgent()
  if (isSaved) {
    await agent.checkpoint(1, 'work')
    await agent.send({ type: 'workspace_saved', data: { repositories: [], left_out: [] } })
  }
  const blob_id = await agent.putBlob('said')
  const about = { harness: 'oz', format: 'test', step: isSaved ? 1 : 0, blob_id }
  await agent.send({ type: 'checkpoint', data: { ...about, is_work_saved: isWorkSaved } })
  await agent.end('FAILED')
  await agent.nextTurn(true)
  worker.complete(assignment)
  await cp.client.runs.followUp(runId, { message: 'again' })
  const { checkpoint, continues } = await cp.agentFor(await worker.claimNext()).hello()
  expect(checkpoint?.blob_id).toBe(blob_id)
  return continues
}

test.each([{ isSaved: false }, { isSaved: true }])(
  'a conversation that has only been spoken to since is no newer than its workspace: %j',
  async ({ isSaved }) => {
    const spoken = { reason: 'follow_up', is_workspace_stale: false }
    expect(await nextHello({ isSaved, isWorkSaved: true })).toEqual(spoken)
    expect(await nextHello({ isSaved })).toEqual({ ...spoken, is_workspace_stale: true })
  },
)
