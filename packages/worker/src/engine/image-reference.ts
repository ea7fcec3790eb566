import { AppError } from '@openoz/protocol'

/** The name of an image in all its parts. */
export interface ImageReference {
  /** Of its registry, with the port: "docker.io" when the name has none. */
  host: string
  /** Within the registry: "library/debian". */
  repository: string
  /** Never both absent: "latest" when the name has neither. */
  tag?: string
  digest?: string
  /** Whether the name itself says which: without, it is the newest that is meant. */
  hasVersion: boolean
  /** As `docker` writes it, and as its API takes it: "debian:12". */
  familiar: string
  /** The same without tag and digest: "debian". */
  familiarName: string
}

/** Of Docker Hub, and what it means when nobody names a registry. */
export const hubHost = 'docker.io'

const component = '[a-z0-9]+(?:(?:[.]|_|__|-+)[a-z0-9]+)*'
const repositoryPattern = new RegExp(`^${component}(?:/${component})*$`)
const label = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])'
const hostPattern = new RegExp(`^(?:${label}(?:[.]${label})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$`)
const tagPattern = /^\w[\w.-]{0,127}$/
const digestPattern = /^sha256:[a-f0-9]{64}$/
const maxNameLength = 255

/** Reads a name as `docker pull` does. Throws `image_reference_invalid`. */
export function parseImage(image: string): ImageReference {
  const refuse = (problem: string) => new AppError('image_reference_invalid', { image: image.slice(0, 300), problem })
  const [rest = '', digest, ...more] = image.split('@')
  if (more.length > 0 || (digest !== undefined && !digestPattern.test(digest)))
    throw refuse('what follows the @ is not sha256: and 64 digits')
  const colon = rest.lastIndexOf(':')
  // A colon before a slash is that of the registry's port.
  const hasTag = colon > rest.lastIndexOf('/')
  const name = hasTag ? rest.slice(0, colon) : rest
  const tag = hasTag ? rest.slice(colon + 1) : undefined
  if (tag !== undefined && !tagPattern.test(tag))
    throw refuse(`the tag ${JSON.stringify(tag.slice(0, 150))} is not one`)
  if (name === '') throw refuse('it is empty')
  const { host, repository } = splitHost(name)
  if (!hostPattern.test(host)) throw refuse(`${host} is not the name of a registry`)
  if (repository !== repository.toLowerCase()) throw refuse('upper case is for tags only')
  if (!repositoryPattern.test(repository)) throw refuse('it has characters that names do not have')
  if (host.length + 1 + repository.length > maxNameLength) throw refuse(`it is longer than ${maxNameLength} characters`)
  const familiarName = familiarNameOf(host, repository)
  if (/^[a-f0-9]{64}$/.test(familiarName)) throw refuse('it is an id, which no registry knows')
  const hasVersion = tag !== undefined || digest !== undefined
  const suffix = digest === undefined ? `:${tag ?? 'latest'}` : `@${digest}`
  return {
    host,
    repository,
    tag: hasVersion ? tag : 'latest',
    digest,
    hasVersion,
    familiar: familiarName + suffix,
    familiarName,
  }
}

/** The first part is a registry when it could not be the name of a user there. */
function splitHost(name: string): { host: string; repository: string } {
  const slash = name.indexOf('/')
  const first = slash < 0 ? '' : name.slice(0, slash)
  const isHost = /[.:]/.test(first) || first === 'localhost' || first !== first.toLowerCase()
  const host = !isHost || first === 'index.docker.io' ? hubHost : first
  const path = isHost ? name.slice(slash + 1) : name
  return { host, repository: host === hubHost && !path.includes('/') ? `library/${path}` : path }
}

function familiarNameOf(host: string, repository: string): string {
  if (host !== hubHost) return `${host}/${repository}`
  const official = repository.replace(/^library\//, '')
  return official.includes('/') ? repository : official
}
