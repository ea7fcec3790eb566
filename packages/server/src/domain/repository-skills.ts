import {
  type AgentControlData,
  type ListAgentsQuery,
  type ListAgentsResponse,
  maxSkillsBytes,
  repositoriesOf,
  repositoryAddress,
} from '@openoz/protocol'
import type { Tx } from '../store/database.ts'
import { listEnvironmentConfigs } from '../store/environments.ts'
import type { ExecutionRecord } from '../store/executions.ts'
import { listRepositorySkills, type RepositoryName, replaceRepositorySkills } from '../store/repository-skills.ts'
import type { RunRecord } from '../store/runs.ts'
import type { Actor } from './actors.ts'
import type { Ctx } from './context.ts'
import { storableText } from './session-log.ts'

/**
 * Skills (`SKILL.md`) of the repositories that runs have cloned. The control plane reads no repository itself: agents say what they found, and the
 * last one that cloned a repository is right. What a personal run found stays its owner's: it is not kept.
 */

export async function keepSkills(
  tx: Tx,
  { run, execution }: { run: RunRecord; execution: ExecutionRecord },
  { repository_url, skills }: AgentControlData['skills_found'],
): Promise<void> {
  const repository = repositoryNamed(repository_url)
  if (!repository || run.scope !== 'team') return
  const { host, owner, repo } = repository
  const workerHost = forges.has(host) ? null : execution.workerId
  let room = maxSkillsBytes
  const kept = skills.flatMap(({ path, name, description, base_prompt, error }) => {
    room -= Buffer.byteLength(base_prompt) + Buffer.byteLength(description)
    if (room < 0 || !isIndexable(host, owner, repo, path)) return []
    return [
      {
        path: storableText(path),
        name: storableText(name),
        description: storableText(description),
        basePrompt: storableText(base_prompt),
        workerHost,
        error: error === undefined ? null : storableText(error),
      },
    ]
  })
  await replaceRepositorySkills(tx, { teamId: run.teamId, repository, runId: run.id }, kept)
}

/** A row of a PostgreSQL index holds 2,704 bytes. */
function isIndexable(...parts: string[]): boolean {
  return parts.every((part) => Buffer.byteLength(part) <= 600)
}

/** `GET agent`: skills by their names; the same name may stand for one of each of several repositories. */
export async function listAgents(ctx: Ctx, query: ListAgentsQuery, actor: Actor): Promise<ListAgentsResponse> {
  const skills = await listRepositorySkills(ctx.db, actor.teamId, {
    repository: query.repo,
    withMalformed: query.include_malformed_skills ?? false,
  })
  const environments = (await listEnvironmentConfigs(ctx.db, actor)).map(({ id, config }) => ({
    uid: id,
    name: config.name ?? '',
    repositories: new Set(repositoriesOf(config).map(({ url }) => keyOf(repositoryNamed(url)))),
  }))
  const agents = [...Map.groupBy(skills, ({ name }) => name)].map(([name, variants]) => ({
    name,
    lastSeen: Math.max(...variants.map(({ seenAt }) => seenAt.getTime())),
    variants: variants.map((skill) => ({
      id: `${nameOf(skill)}:${skill.path}`,
      description: skill.description,
      base_prompt: skill.basePrompt,
      source: {
        owner: skill.owner,
        name: skill.repo,
        skill_path: skill.path,
        ...(skill.workerHost === null ? {} : { worker_host: skill.workerHost }),
      },
      environments: environments
        .filter(({ repositories }) => repositories.has(keyOf(skill)))
        .map(({ uid, name }) => ({ uid, name })),
      ...(skill.error === null ? {} : { error: skill.error }),
      last_run_timestamp: skill.seenAt.toISOString(),
    })),
  }))
  if (query.sort_by === 'last_run') agents.sort((a, b) => b.lastSeen - a.lastSeen)
  return { agents: agents.map(({ lastSeen: _, ...agent }) => agent) }
}

/** The same for a repository in every spelling. */
function keyOf(repository: RepositoryName | undefined): string | undefined {
  return repository && `${repository.host}/${repository.owner}/${repository.repo}`.toLowerCase()
}

/** `owner/repo` is GitHub's; others have their host before them. */
function nameOf({ host, owner, repo }: RepositoryName): string {
  return [...(host === 'github.com' ? [] : [host]), owner, repo].filter((part) => part !== '').join('/')
}

/** Hosts whose repositories have the same name for every worker. */
const forges = new Set(['github.com', 'gitlab.com', 'bitbucket.org', 'codeberg.org', 'dev.azure.com'])

/** Owner and name as a forge knows them; groups within groups are all the owner. undefined: the address names none. */
function repositoryNamed(url: string): RepositoryName | undefined {
  const address = repositoryAddress(url)
  const names = (address?.path ?? '').split('/').filter((name) => name !== '')
  const repo = names.pop()
  if (address === undefined || repo === undefined) return undefined
  return { host: address.host, owner: names.join('/'), repo }
}
