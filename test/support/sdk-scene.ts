import { type ControlPlane, startControlPlane } from './control-plane.ts'
import { savedRepository } from './saved-repository.ts'

/** What the published SDKs are shown: a run that has done all that a run can do, and another that waits. */
export interface SdkScene {
  cp: ControlPlane
  /** Below it are the SDKs' paths. */
  baseUrl: string
  environmentId: string
  /** Succeeded, with a plan, a pull request, a file, and a saved workspace with two files. */
  doneRunId: string
  doneConversationId: string
  doneSessionId: string
  planUid: string
  fileUid: string
  /** Queued, labelled `ticket_id: SHOP-7`, named `nightly`, in the environment. */
  waitingRunId: string
}

export async function startSdkScene(): Promise<SdkScene & AsyncDisposable> {
  const cp = await startControlPlane()
  const { uid: environmentId } = await cp.client.environments.create({
    name: 'shop',
    github_repos: [{ owner: 'acme', repo: 'shop' }],
  })
  const { agent, runId: doneRunId, worker, assignment } = await cp.startAgent({ title: 'Add a search' })
  const blob_id = await agent.putBlob('bytes of the file', 'text/plain')
  const file = { filepath: 'out/report.txt', filename: 'report.txt', mime_type: 'text/plain', size_bytes: 17, blob_id }
  const plan = { artifact_uid: 'plan-1', document_uid: 'plan-1', title: 'The plan', content: '# The plan' }
  const pullRequest = { artifact_uid: 'pr-1', url: 'https://git.test/acme/shop/pull/1', branch: 'search' }
  await agent.send(
    { type: 'artifact', data: { artifact_type: 'PLAN', ...plan } },
    { type: 'artifact', data: { artifact_type: 'PULL_REQUEST', ...pullRequest } },
    { type: 'artifact', data: { artifact_type: 'FILE', artifact_uid: 'file-1', ...file } },
  )
  const saved = savedRepository(await agent.putBlob('bundle'), await agent.putBlob('diff'))
  await agent.send({ type: 'workspace_saved', data: { repositories: [{ ...saved, dir: '.' }], left_out: [] } })
  await agent.end('SUCCEEDED', 'All is done.')
  await agent.nextTurn(true)
  worker.complete(assignment)
  await cp.waitFor(doneRunId, 'SUCCEEDED')
  const done = await cp.client.runs.get(doneRunId)
  await worker.disconnect()
  const waitingRunId = await cp.createRun({
    prompt: 'Search for the needle',
    metadata: { ticket_id: 'SHOP-7' },
    config: { name: 'nightly', environment_id: environmentId, worker_host: 'nobody' },
  })
  return {
    cp,
    baseUrl: `${cp.url}/api/v1`,
    environmentId,
    doneRunId,
    doneConversationId: done.conversation_id,
    doneSessionId: agent.executionId,
    planUid: 'plan-1',
    fileUid: 'file-1',
    waitingRunId,
    [Symbol.asyncDispose]: () => cp[Symbol.asyncDispose](),
  }
}
