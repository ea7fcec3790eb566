import type { CloudEnvironmentConfig, SourceRepo } from './agent-config.ts'

/**
 * The repositories of an environment as the agent clones them: its two spellings in one list, in order. The same repository in the same folder
 * at the same ref is one, however it is written; with another `dir` or `ref` it is another.
 */
export function repositoriesOf(environment: CloudEnvironmentConfig | undefined): SourceRepo[] {
  const fromGitHub = (environment?.github_repos ?? []).map(({ owner, repo }) => ({ url: `${owner}/${repo}` }))
  const byName = new Map<string, SourceRepo>()
  for (const source of [...fromGitHub, ...(environment?.source_repos ?? [])]) {
    const name = nameOf(source)
    if (!byName.has(name)) byName.set(name, source)
  }
  return [...byName.values()]
}

function nameOf({ url, ref, dir }: SourceRepo): string {
  const repository = canonical(url)
  const folder = dir?.replace(/\/+$/, '') ?? repository.split('/').at(-1)
  return JSON.stringify([repository, ref ?? null, folder])
}

/** `owner/repo` on GitHub, `user@host:path`, and everything with a scheme; the last two name the same repository when host and path agree. */
const gitHubForm = /^[\w.-]+\/[\w.-]+$/
const scpForm = /^(?:[\w.-]+@)?([\w.-]{2,}):(?!\/\/)(\S+)$/

function canonical(url: string): string {
  const { host, path } = repositoryAddress(url) ?? {}
  if (host === undefined) return url
  // Folders of this machine may differ in case alone; hosts that serve repositories do not tell their names apart by it.
  return host === '' ? `file:///${path}` : `${host}/${path}`.toLowerCase()
}

const schemes = new Set(['https:', 'http:', 'ssh:', 'git:', 'file:'])

/** Whether an agent can clone from there. Everything else that git knows (`ext::`, `fd::`) runs programs of the address's choice. */
export function isRepositoryAddress(url: string): boolean {
  if (gitHubForm.test(url)) return !/(^|\/)\./.test(url)
  if (URL.canParse(url) && schemes.has(new URL(url).protocol)) return true
  return scpForm.test(url) && !url.startsWith('-') && !url.includes('::')
}

/**
 * Where a repository is: its host with its port, in lower case ('' for a folder of the machine itself), and its path there, as it is written,
 * without `.git`. undefined: the text is no address.
 */
export function repositoryAddress(url: string): { host: string; path: string } | undefined {
  const [, host, path] = scpForm.exec(url) ?? []
  if (gitHubForm.test(url)) return { host: 'github.com', path: withoutEnds(url) }
  if (host !== undefined && path !== undefined) return { host: host.toLowerCase(), path: withoutEnds(path) }
  if (!URL.canParse(url)) return undefined
  const parsed = new URL(url)
  return { host: parsed.host, path: withoutEnds(decoded(parsed.pathname)) }
}

function decoded(path: string): string {
  try {
    return decodeURIComponent(path)
  } catch {
    return path
  }
}

function withoutEnds(path: string): string {
  return path
    .replace(/^\/+/, '')
    .replace(/\/+$/, '')
    .replace(/\.git$/i, '')
}
