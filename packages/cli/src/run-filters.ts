import type { ArtifactType, ListRunsParams, RunSource, RunState } from '@openoz/protocol'
import { readMetadata } from './run-wishes.ts'

/** The command line's words for what the wire calls otherwise. */
export const stateNames = {
  queued: 'QUEUED',
  pending: 'PENDING',
  claimed: 'CLAIMED',
  'in-progress': 'INPROGRESS',
  succeeded: 'SUCCEEDED',
  failed: 'FAILED',
  error: 'ERROR',
  blocked: 'BLOCKED',
  cancelled: 'CANCELLED',
} as const satisfies Record<string, RunState>

export const sourceNames = {
  api: 'API',
  cli: 'CLI',
  slack: 'SLACK',
  linear: 'LINEAR',
  'scheduled-agent': 'SCHEDULED_AGENT',
  'web-app': 'WEB_APP',
  'cloud-mode': 'CLOUD_MODE',
  'github-action': 'GITHUB_ACTION',
  jira: 'JIRA',
  'github-webhook': 'GITHUB_WEBHOOK',
  'gitlab-webhook': 'GITLAB_WEBHOOK',
  autofix: 'AUTOFIX',
  orchestration: 'ORCHESTRATION',
  'run-scorer': 'RUN_SCORER',
  'self-improvement': 'SELF_IMPROVEMENT',
  interactive: 'LOCAL',
} as const satisfies Record<string, RunSource>

export const artifactTypeNames = {
  plan: 'PLAN',
  'pull-request': 'PULL_REQUEST',
  screenshot: 'SCREENSHOT',
  file: 'FILE',
  'external-reference': 'EXTERNAL_REFERENCE',
} as const satisfies Record<string, ArtifactType>

export interface ListOptions {
  limit: number
  state: (keyof typeof stateNames)[]
  source?: keyof typeof sourceNames
  executionLocation?: 'local' | 'remote'
  creator?: string
  environment?: string
  skill?: string
  schedule?: string
  artifactType?: keyof typeof artifactTypeNames
  metadata: string[]
  ancestorRun?: string
  name?: string
  model?: string
  createdAfter?: string
  createdBefore?: string
  updatedAfter?: string
  query?: string
  sortBy?: string
  sortOrder?: string
  cursor?: string
}

/** What the server is asked for; it checks the values, so that there is one rule and one message. */
export function listParams(options: ListOptions): ListRunsParams {
  return {
    limit: options.limit,
    state: options.state.map((name) => stateNames[name]),
    source: options.source && sourceNames[options.source],
    execution_location: options.executionLocation?.toUpperCase(),
    creator: options.creator,
    environment_id: options.environment,
    skill_spec: options.skill,
    schedule_id: options.schedule,
    artifact_type: options.artifactType && artifactTypeNames[options.artifactType],
    ...labelParams(options.metadata),
    ancestor_run_id: options.ancestorRun,
    name: options.name,
    model_id: options.model,
    created_after: options.createdAfter,
    created_before: options.createdBefore,
    updated_after: options.updatedAfter,
    q: options.query,
    sort_by: options.sortBy?.replaceAll('-', '_'),
    sort_order: options.sortOrder,
    cursor: options.cursor,
  }
}

function labelParams(texts: readonly string[]): ListRunsParams {
  const labels = Object.entries(readMetadata(texts) ?? {})
  return Object.fromEntries(labels.map(([key, value]) => [`metadata[${key}]`, value]))
}
