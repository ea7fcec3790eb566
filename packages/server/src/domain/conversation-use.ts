import { AppError, isLive, isTerminal, type SavedRepository } from '@openoz/protocol'
import { v7 as uuidv7 } from 'uuid'
import { copyBlob } from '../store/blobs.ts'
import {
  findLastCheckpointForShare,
  findWorkspaceOfConversationForShare,
  insertCheckpoint,
  insertSavedWorkspace,
} from '../store/checkpoints.ts'
import type { Tx } from '../store/database.ts'
import { type ExecutionRecord, findCurrentExecutionForUpdate, updateExecutionEnded } from '../store/executions.ts'
import {
  findConversationForUpdate,
  findRunForUpdate,
  listRunsBehindConversation,
  listRunsOfConversation,
  listRunsOfConversationForShare,
  type RunRecord,
} from '../store/runs.ts'
import type { Actor } from './actors.ts'
import type { Hint } from './context.ts'
import { maySee } from './permissions.ts'
import { storableJson } from './session-log.ts'
import { moveRun } from './turns.ts'

/**
 * Who works in a conversation. It may be continued by several runs, one at a time: two at once would each go on without what the other one did. An
 * agent that only waits for follow-ups of an earlier run is not at work; it is ended, since it remembers the conversation as it was.
 *
 * Whoever goes on with a conversation or copies it is given what all of its runs know. So one has to be allowed to see them all; else the
 * conversation is as good as unknown.
 */

interface Use {
  conversationId: string
  actor: Actor
  /** The run that goes on, when it exists already. Its row is locked. */
  forRunId: string | null
  scope: RunRecord['scope']
}

/** Takes the conversation for a run that is about to begin or to go on. Throws `conversation_not_found`, `conversation_of_team` or `conversation_busy`. */
export async function claimConversation(tx: Tx, hint: Hint, use: Use): Promise<void> {
  const { conversationId, actor, forRunId, scope } = use
  const listOthers = async () => (await listRunsOfConversation(tx, conversationId)).filter(({ id }) => id !== forRunId)
  // Its only run: whoever wants to continue it has to lock that one, as our caller did.
  if (forRunId !== null && (await listOthers()).length === 0) return
  if (!(await findConversationForUpdate(tx, conversationId, actor.teamId)))
    throw new AppError('conversation_not_found', { conversationId })
  const others = await listOthers()
  requireSeen(others.length > 0 ? others : await listRunsBehindConversation(tx, conversationId), use)
  // With a personal run among them nobody else could go on with the others.
  if (forRunId === null && scope === 'user' && others.some((run) => run.scope === 'team'))
    throw new AppError('conversation_of_team', { conversationId })
  for (const { id } of others) {
    const run = await findRunForUpdate(tx, id)
    const execution = await findCurrentExecutionForUpdate(tx, id)
    const isAtRest = !execution || ['idle', 'ended', 'lost'].includes(execution.state)
    const isOver = run !== undefined && (isTerminal(run.state) || isLocalQuestion(run, execution))
    if (!isAtRest || !isOver)
      throw new AppError('conversation_busy', { conversationId, otherRunId: id, state: run?.state })
    // Nobody answers it there any more.
    if (isLocalQuestion(run, execution))
      await moveRun(tx, hint, run, { state: 'CANCELLED', message: 'Another run goes on with its conversation.' })
    if (execution?.state !== 'idle') continue
    await updateExecutionEnded(tx, execution.id, { state: 'ended', message: 'Another run continues its conversation.' })
    hint(`commands ${execution.id}`)
    hint(`run ${id}`)
  }
}

/** Of a local run whose agent has left: nobody can answer it there, so another run takes it up, and this one ends. */
function isLocalQuestion(run: RunRecord, execution: ExecutionRecord | undefined): boolean {
  return run.state === 'BLOCKED' && run.executionLocation === 'LOCAL' && !(execution && isLive(execution.state))
}

export function requireSeen(
  runs: RunRecord[],
  { conversationId, actor }: { conversationId: string; actor: Actor },
): void {
  if (!runs.every((run) => maySee(run, actor))) throw new AppError('conversation_not_found', { conversationId })
}

/**
 * Gives a new conversation copies of what another one holds: the last checkpoint and the last saved workspace. Runs are locked before these are
 * looked for: the newest row may be replaced while one waits for its lock, and then there would seem to be none.
 */
export async function copyConversation(
  tx: Tx,
  { from, to, actor }: { from: string; to: { conversationId: string; runId: string }; actor: Actor },
): Promise<{ hasCheckpoint: boolean; hasWorkspace: boolean }> {
  const runs = await listRunsOfConversationForShare(tx, from)
  requireSeen(runs.length > 0 ? runs : await listRunsBehindConversation(tx, from), { conversationId: from, actor })
  const copyOf = async (blobId: string | null) => {
    if (blobId === null) return null
    const id = uuidv7()
    await copyBlob(tx, blobId, { id, runId: to.runId })
    return id
  }
  const checkpoint = await findLastCheckpointForShare(tx, from)
  if (checkpoint) {
    const blobId = (await copyOf(checkpoint.blobId)) ?? checkpoint.blobId
    await insertCheckpoint(tx, { ...checkpoint, ...to, id: uuidv7(), executionId: null, blobId })
  }
  const workspace = await findWorkspaceOfConversationForShare(tx, from)
  if (workspace) {
    const repositories: SavedRepository[] = []
    for (const repository of workspace.repositories)
      repositories.push({
        ...repository,
        bundle_blob_id: await copyOf(repository.bundle_blob_id),
        diff_blob_id: await copyOf(repository.diff_blob_id),
      })
    await insertSavedWorkspace(tx, {
      ...to,
      id: uuidv7(),
      executionId: null,
      repositories: storableJson(repositories),
      leftOut: storableJson(workspace.leftOut),
      createdAt: workspace.createdAt,
    })
  }
  return { hasCheckpoint: checkpoint !== undefined, hasWorkspace: workspace !== undefined }
}
