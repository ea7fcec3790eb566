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

function canonical(url: string): string {
  const { host, path } = repositoryAddress(url) ?? {}
  if (host === undefined) return url
  // Folders of this machine may differ in case alone; hosts that serve repositories do not tell their names apart by it.
  return host === '' ? `file:///${path}` : `${host}/${path}`.toLowerCase()
}

/** `owner/repo` on GitHub. */
const gitHubForm = /^(?!\.)[\w.-]+\/(?!\.)[\w.-]+$/
/** `host:path` and `user@host:path`, git's short form of ssh. A single letter before the colon would be a drive. */
const scpForm = /^(?!-|.*::)(?:[\w.-]+@)?([\w.-]{2,}):(?!\/\/)(\S+)$/
/** Everything else that git knows (`ext::`, `fd::`) runs programs of the address's choice. */
const schemes = new Set(['https:', 'http:', 'ssh:', 'git:', 'file:'])

/** The spellings, for people. */
export const addressForms = 'https://…, ssh://…, git@host:path, file:///…, or owner/repo on GitHub'

/** One of the spellings in which git, or we for it, take the address of a repository. */
export type AddressForm = { kind: 'github' } | { kind: 'url'; url: URL } | { kind: 'scp'; host: string; path: string }

/** undefined: the text is no address, and no agent can clone from there. */
export function addressForm(text: string): AddressForm | undefined {
  if (gitHubForm.test(text)) return { kind: 'github' }
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url && schemes.has(url.protocol)) return { kind: 'url', url }
  const [, host, path] = scpForm.exec(text) ?? []
  return host === undefined || path === undefined ? undefined : { kind: 'scp', host, path }
}

/**
 * Where a repository is: its host with its port, in lower case ('' for a folder of the machine itself), and its path there, as it is written,
 * without `.git`. undefined: the text is no address.
 */
export function repositoryAddress(text: string): { host: string; path: string } | undefined {
  const form = addressForm(text)
  switch (form?.kind) {
    case 'github':
      return { host: 'github.com', path: withoutEnds(text) }
    case 'scp':
      return { host: form.host.toLowerCase(), path: withoutEnds(form.path) }
    case 'url':
      return { host: form.url.host, path: withoutEnds(safeDecode(form.url.pathname)) }
    default:
      return form
  }
}

/** As it is, where it is encoded wrongly. */
export function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

function withoutEnds(path: string): string {
  return path
    .replace(/^\/+/, '')
    .replace(/\/+$/, '')
    .replace(/\.git$/i, '')
}
