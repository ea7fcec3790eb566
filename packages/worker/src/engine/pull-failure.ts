import { AppError, type ErrorCode } from '@openoz/protocol'
import { withoutSecrets } from './engine-failure.ts'
import type { ImageReference } from './image-reference.ts'

/**
 * Why a pull failed, by the words of the engine: there is nothing else to go by, as it answers 500 for most of them, and 200 for those that
 * it meets on the way. Order matters: the first that fits is taken.
 */
const causes: { pattern: RegExp; code: ErrorCode }[] = [
  { pattern: /no space left on device|disk quota exceeded/i, code: 'image_disk_full' },
  {
    pattern: /no matching manifest for|does not match the specified platform|does not provide the specified platform/i,
    code: 'image_wrong_platform',
  },
  {
    pattern:
      /verification failed|unexpected commit digest|digest mismatch|invalid tar header|gzip: invalid|unrecognized layer|invalid checksum/i,
    code: 'image_corrupt',
  },
  {
    pattern:
      /no basic auth credentials|unauthorized|authentication required|incorrect username or password|access denied|access forbidden|denied:|403 forbidden|may require 'docker login'/i,
    code: 'image_login_required',
  },
  // Of a host's name, before that of an image.
  {
    pattern:
      /dial tcp|no such host|lookup .* on |connection refused|connection reset|network is unreachable|no route to host|timeout|deadline exceeded|context canceled|proxyconnect|\bEOF\b|unexpected http status|toomanyrequests|too many requests|bad gateway|service unavailable|internal server error|x509|tls:|http response to https client/i,
    code: 'image_registry_unreachable',
  },
  {
    pattern:
      /manifest unknown|manifest for .* not found|name unknown|repository name not known|repository .* not found|not found/i,
    code: 'image_not_found',
  },
]

/** Those of an unreachable registry that waiting does not cure. */
const lasting = /x509|http response to https client/i

const maxProblemLength = 300

export interface PullFailureContext {
  image: ImageReference
  enginePlatform: string
  /** The registry was shown a login. */
  hadLogin: boolean
}

export function pullFailure(says: string, { image, enginePlatform, hadLogin }: PullFailureContext): AppError {
  const code = causes.find(({ pattern }) => pattern.test(says))?.code ?? 'image_pull_failed'
  const problem = withoutSecrets(says).replaceAll(/\s+/g, ' ').slice(0, maxProblemLength).replace(/\.$/, '')
  return new AppError(code, {
    image: image.familiar,
    host: image.host,
    problem,
    login: hadLogin ? 'with the login that this worker has' : 'without a login',
    imagePlatform: 'other platforms',
    enginePlatform,
  })
}

/** The next try may go better. */
export function isTransientPullFailure(error: unknown): boolean {
  return (
    error instanceof AppError &&
    error.code === 'image_registry_unreachable' &&
    !lasting.test(String(error.details.problem))
  )
}
