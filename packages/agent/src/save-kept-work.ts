import { existsSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import {
  createDialer,
  createEventPost,
  createMasker,
  type EventPost,
  openSpool,
  type Spool,
  startEventSender,
} from '@openoz/machine'
import type { AgentEvent } from '@openoz/protocol'
import type { Logger } from 'pino'
import { type AgentChannel, createAgentChannel, retrying } from './channel.ts'
import { type KeptCheckpoint, type KeptWorkspace, removeKeptWork } from './kept-work.ts'
import { readKeptWork } from './kept-work-reader.ts'
import { savedWorkName, spooledWorkName } from './save-work.ts'
import { isNothing, saveWorkspace } from './workspace/save.ts'

/**
 * Saves what an agent left that died without a word (see `kept-work.ts`), as the task that it was: git runs programs of a repository's choice.
 * Started by the worker once nothing of the task runs any more. It goes on in the agent's own spool with its numbers and its token, so to the
 * control plane it is the same execution, whose lease its posts renew. Afterwards the worker reports the end.
 *
 * Where the execution is over (its lease was lost long ago) all of it is said just the same, as late evidence: what becomes of it the control plane
 * decides, which knows whether somebody has gone on without it.
 */
export interface SaveKeptWorkOptions {
  serverUrl: string
  executionToken: string
  spoolDir: string
  /** What git inherits, without our own variables. */
  env: NodeJS.ProcessEnv
  log: Logger
  signal: AbortSignal
  /** For everything; default 110 s, a little less than what the worker gives. */
  timeoutMs?: number
}

export interface SaveKeptWorkResult {
  /** False: files since the last save are lost. What was done of the conversation may still be there. */
  saved: boolean
  /** What is kept is still there: only the control plane, or the time, was not. */
  canBeTriedAgain?: true
  leftOut: string[]
}

/** A filter of the repository that hangs shall not take all the time. */
const gitTimeoutMs = 60_000

/** Never rejects: what went wrong is in the log. */
export async function saveKeptWork(options: SaveKeptWorkOptions): Promise<SaveKeptWorkResult> {
  const { spoolDir, log, timeoutMs = 110_000 } = options
  const kept = readKeptWork(spoolDir)
  if (!kept.workspace && !kept.checkpoint) return { saved: true, leftOut: [] }
  const over = new AbortController()
  const signal = AbortSignal.any([options.signal, AbortSignal.timeout(timeoutMs), over.signal])
  try {
    await using dialer = closing(createDialer({ serverUrl: options.serverUrl, env: options.env }))
    using spool = await openSpool(spoolDir, { ownerIsGone: true, maxBytes: Number.POSITIVE_INFINITY })
    const post = createEventPost(dialer.dialer, () => options.executionToken)
    const isWhole = await takeUpNumbers(spool, post, signal)
    const isNewer = isWhole && kept.checkpoint !== undefined && kept.checkpoint.step >= lastCheckpointStep(spool)
    await using sender = startEventSender({
      spool,
      post,
      log,
    })
    void sender.ended.then((end) => {
      if (end.kind === 'refused') over.abort(new Refused(end.message))
    })
    const channel = createAgentChannel(dialer.dialer, options.executionToken)
    const checkpoint = isNewer && kept.checkpoint ? await checkpointEvent(channel, kept.checkpoint, signal) : []
    const workspace = await workspaceEvents(options, { channel, kept: kept.workspace, signal })
    const masker = createMasker([options.executionToken])
    // Together, so that nobody ever sees a conversation that knows more than its workspace has.
    spool.append(masker.maskValue([...checkpoint, ...workspace.events]), { isFinal: true })
    if (workspace.isSaved && kept.workspace) markSpooled(spoolDir)
    // What is in the spool is safe; what is kept would only be saved a second time.
    if (workspace.isSaved) removeKeptWork(spoolDir)
    const isDelivered = await sender.flushed(signal).catch(() => false)
    if (isDelivered) rmSync(join(spoolDir, spooledWorkName), { recursive: true, force: true })
    return { saved: workspace.isSaved, leftOut: workspace.leftOut }
  } catch (error) {
    log.error({ err: error }, 'what a dead agent had done could not be saved')
    const canBeTriedAgain = signal.aborted && !(signal.reason instanceof Refused)
    return { saved: false, ...(canBeTriedAgain ? { canBeTriedAgain } : {}), leftOut: [] }
  }
}

class Refused extends Error {}

/** The same once more, saved by the agent itself before it ended: from now on it is needed only if the spool is never delivered. */
function markSpooled(spoolDir: string): void {
  const saved = join(spoolDir, savedWorkName)
  if (!existsSync(saved)) return
  const spooled = join(spoolDir, spooledWorkName)
  rmSync(spooled, { recursive: true, force: true })
  renameSync(saved, spooled)
}

const postTimeoutMs = 15_000

/**
 * The control plane knows best how far the numbers went: a machine that lost its power may have lost events that were acknowledged, and what got their
 * numbers now would be taken for them. False: it has lost some, so what it kept of the conversation may be older than what the control plane has.
 */
async function takeUpNumbers(spool: Spool, post: EventPost, signal: AbortSignal): Promise<boolean> {
  const answer = await retrying(signal, () =>
    post({ events: [] }, AbortSignal.any([signal, AbortSignal.timeout(postTimeoutMs)])),
  )
  const isWhole = answer.acked_n <= spool.lastN
  spool.acknowledge(answer.acked_n)
  return isWhole
}

/** Of those that the control plane does not have yet; -1 for none. What it has came from what was kept, or is older. */
function lastCheckpointStep(spool: Spool): number {
  let step = -1
  for (let n = spool.ackedN; n < spool.lastN; ) {
    const page = spool.pending(n, { maxEvents: 1_000 })
    for (const { type, data } of page) if (type === 'checkpoint') step = Math.max(step, Number(data.step))
    n = page.at(-1)?.n ?? spool.lastN
  }
  return step
}

async function checkpointEvent(
  channel: AgentChannel,
  { harness, format, step, data, takenMessageIds }: KeptCheckpoint,
  signal: AbortSignal,
): Promise<AgentEvent[]> {
  const blobId = await channel.uploadBlob(data, { contentType: 'application/json', signal })
  return [{ type: 'checkpoint', data: { harness, format, step, blob_id: blobId, taken_message_ids: takenMessageIds } }]
}

async function workspaceEvents(
  { env, log }: SaveKeptWorkOptions,
  { channel, kept, signal }: { channel: AgentChannel; kept: KeptWorkspace | undefined; signal: AbortSignal },
): Promise<{ isSaved: boolean; leftOut: string[]; events: AgentEvent[] }> {
  if (!kept) return { isSaved: true, leftOut: [], events: [] }
  const { workspace, maxBytes } = kept
  try {
    const state = await saveWorkspace({
      ...workspace,
      env,
      maxBytes,
      signal,
      commandTimeoutMs: gitTimeoutMs,
      store: (file, contentType) => channel.uploadBlob({ file }, { contentType, signal }),
    })
    const { repositories, leftOut } = state
    // Said also when nothing is left: a file that was saved before and deleted since must not come back.
    const saved: AgentEvent = { type: 'workspace_saved', data: { repositories, left_out: leftOut } }
    if (isNothing(state)) return { isSaved: true, leftOut, events: [saved] }
    const text = 'The agent’s process had ended without saving; its worker has saved what it had done so far.'
    const events: AgentEvent[] = [{ type: 'notice', data: { level: 'info', text } }, saved]
    return { isSaved: true, leftOut, events }
  } catch (error) {
    signal.throwIfAborted()
    log.error({ err: error }, 'the workspace of a dead agent could not be saved')
    return { isSaved: false, leftOut: [], events: [] }
  }
}

function closing<T extends { close(): Promise<void> }>(dialer: T) {
  return { dialer, [Symbol.asyncDispose]: () => dialer.close() }
}
