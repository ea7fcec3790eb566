import { posix } from 'node:path'
import { AppError } from '@openoz/protocol'

/** What the operator mounts into the container of every task: `HOST:CONTAINER[:MODE]`, as `docker run -v` takes it. */
export interface TaskVolume {
  /** As it was written. */
  spec: string
  /** An absolute path of the engine's machine, or the name of a volume. */
  source: string
  isPath: boolean
  /** Absolute, without `..` and a slash at the end. */
  target: string
  /** `ro`, `rw,z`, …; undefined: what the engine makes of none. */
  mode?: string
}

/** The task's own: the engine takes one mount per place. Below `/workspace` there is room for others. */
const taken = ['/', '/workspace', '/agent', '/run/openoz', '/run/openoz-server']

const modes = ['ro', 'rw', 'z', 'Z', 'nocopy', 'private', 'rprivate', 'shared', 'rshared', 'slave', 'rslave']

/** Throws `volume_spec_invalid`. */
export function parseVolume(spec: string): TaskVolume {
  const invalid = (problem: string) => new AppError('volume_spec_invalid', { spec, problem })
  const [source = '', place = '', mode, ...rest] = spec.split(':')
  if (rest.length > 0 || source === '' || place === '') throw invalid('it must have two parts, or three')
  const isPath = source.startsWith('/')
  if (!isPath && !/^[A-Za-z0-9][\w.-]+$/.test(source))
    throw invalid('the first part must be an absolute path, or the name of a volume')
  if (!place.startsWith('/')) throw invalid('the path in the container must be absolute')
  const target = normalPath(place)
  const isTaken = taken.includes(target) || ['/agent/', '/run/openoz/'].some((folder) => target.startsWith(folder))
  if (isTaken) throw invalid(`${target} is the task’s own place`)
  const unknown = mode?.split(',').find((word) => !modes.includes(word))
  if (unknown !== undefined) throw invalid(`the mode ${JSON.stringify(unknown)} is none of ${modes.join(', ')}`)
  const path = isPath ? normalPath(source) : source
  return { spec, source: path, isPath, target, ...(mode === undefined ? {} : { mode }) }
}

/** An absolute path as it is compared with others. */
export function normalPath(path: string): string {
  return withoutSlash(posix.normalize(path))
}

function withoutSlash(path: string): string {
  return path === '/' ? path : path.replace(/\/$/, '')
}
