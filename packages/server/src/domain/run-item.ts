import type { ArtifactItem, Run } from '@openoz/protocol'
import { artifactItem } from '@openoz/protocol/schemas'
import type { RunFacts } from '../store/run-lists.ts'
import type { RunRecord } from '../store/runs.ts'
import { toPersonItem, toScopeItem } from './person-item.ts'

/** A run as the API shows it. */
export function toRunItem(run: RunRecord & { facts: RunFacts }): Run {
  const { facts } = run
  const creator = creatorOf(run)
  return {
    run_id: run.id,
    task_id: run.id,
    title: run.title,
    state: run.state,
    execution_location: run.executionLocation,
    prompt: run.prompt,
    created_at: run.createdAt.toISOString(),
    updated_at: run.updatedAt.toISOString(),
    started_at: run.startedAt?.toISOString() ?? null,
    finished_at: run.endedAt?.toISOString() ?? null,
    ...(run.statusMessage === null
      ? {}
      : {
          status_message: {
            message: run.statusMessage,
            ...(run.errorCode === null ? {} : { error_code: run.errorCode }),
            ...(run.failureReason === null ? {} : { failure_reason: run.failureReason }),
          },
        }),
    source: run.source,
    creator,
    executor: creator,
    scope: toScopeItem(run.scope, { teamId: run.teamId, userId: run.createdByUser }),
    request_usage: requestUsage(facts.usage),
    usage: facts.usage,
    agent_config: run.config,
    conversation_id: run.conversationId,
    ...(facts.forkedFrom === null ? {} : { forked_from_conversation_id: facts.forkedFrom }),
    ...(run.parentRunId === null ? {} : { parent_run_id: run.parentRunId }),
    is_sandbox_running: facts.hasLiveExecution,
    is_run_type_cancellable: true,
    artifacts: facts.artifacts.flatMap((artifact) => toArtifactItem(artifact)),
    metadata: run.metadata,
    mode: run.mode,
    shares: facts.shares,
    ...(run.host === null ? {} : { host: run.host }),
    ...(facts.newestExecutionId === null ? {} : { session_id: facts.newestExecutionId }),
    ...(facts.seconds === null ? {} : { run_time: `PT${Math.max(0, facts.seconds).toFixed(3)}S` }),
    last_event_sequence: facts.lastSeq,
  }
}

/** The reference's shape: every token that was read, cached or not. */
function requestUsage(usage: RunFacts['usage']): Run['request_usage'] {
  const input = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
  return {
    total_tokens: input + usage.output_tokens,
    input_tokens: input,
    output_tokens: usage.output_tokens,
    requests: usage.requests,
    ...(usage.cost_usd === undefined ? {} : { inference_cost: usage.cost_usd, inference_cost_usd: usage.cost_usd }),
  }
}

function creatorOf({ createdByUser, createdByKey, teamId, facts }: RunRecord & { facts: RunFacts }): Run['creator'] {
  const isPerson = createdByUser !== null
  return toPersonItem({
    userId: createdByUser,
    keyId: createdByKey,
    teamId,
    name: isPerson ? facts.creatorName : facts.keyName,
    email: facts.creatorEmail,
  })
}

/** As a list shows it. What does not fit its type's shape was reported by a newer or another agent, and is in the session log. */
function toArtifactItem({ at, data }: RunFacts['artifacts'][number]): ArtifactItem[] {
  const { artifact_type, ...rest } = data
  const read = artifactItem.safeParse({ artifact_type, created_at: new Date(at).toISOString(), data: rest })
  return read.success ? [read.data] : []
}
