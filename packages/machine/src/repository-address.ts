import { createHash } from 'node:crypto'
import { AppError, addressForm, addressForms, safeDecode } from '@openoz/protocol'

/** Where a repository is fetched from, and how it is spoken of. The same to the agent that clones it and to the worker that mirrors it. */
export interface RepositoryAddress {
  /** What git is given; may hold a password. */
  url: string
  /** The same for people, events and messages: without credentials. */
  shown: string
  /** Passwords and tokens inside the URL, for the masker. */
  secrets: string[]
  /** A repository on this machine's own disk. */
  isLocal: boolean
}

/** Throws `repository_clone_failed` for what is no address of a repository. */
export function repositoryAddress(source: string): RepositoryAddress {
  const form = addressForm(source)
  switch (form?.kind) {
    case 'github': {
      const url = `https://github.com/${source.replace(/\.git$/, '')}.git`
      return { url, shown: url, secrets: [], isLocal: false }
    }
    case 'url': {
      const { url } = form
      return { url: source, shown: withoutCredentials(url), secrets: secretsOf(url), isLocal: url.protocol === 'file:' }
    }
    case 'scp':
      return { url: source, shown: source, secrets: [], isLocal: false }
    default: {
      const problem = `this is no address of a repository (${addressForms}).`
      throw new AppError('repository_clone_failed', { repository: source.slice(0, 200), problem })
    }
  }
}

/** The name of a repository's mirror; see `mirrors.ts` of the worker. */
export function mirrorName({ shown }: RepositoryAddress): string {
  return createHash('sha256').update(shown).digest('hex').slice(0, 32)
}

function withoutCredentials(url: URL): string {
  if (url.username === '' && url.password === '') return url.href
  const shown = new URL(url)
  // A user name beside a password is one (`git`, `oauth2`); alone over https it is the token itself.
  if (shown.password !== '' || shown.protocol.startsWith('http')) shown.username = ''
  shown.password = ''
  return shown.href
}

function secretsOf(url: URL): string[] {
  const parts = url.protocol.startsWith('http') && url.password === '' ? [url.username] : [url.password]
  return parts.filter((part) => part !== '').flatMap((part) => [part, safeDecode(part)])
}
