import type { CloudEnvironmentConfig, SourceRepo } from './agent-config.ts'

/** One repository as the agent clones it: the two spellings of an environment in one list, in order. */
export function repositoriesOf(environment: CloudEnvironmentConfig | undefined): SourceRepo[] {
  const fromGitHub = (environment?.github_repos ?? []).map(({ owner, repo }) => ({ url: `${owner}/${repo}` }))
  return [...fromGitHub, ...(environment?.source_repos ?? [])]
}
