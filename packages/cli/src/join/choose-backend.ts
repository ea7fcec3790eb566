import type { BackendName } from '@openoz/worker'
import { createLogger } from '../log.ts'

/** What a worker's tasks run in, and why that. */
export interface ChosenBackend {
  backend: BackendName
  why: string
}

/** `auto`: containers where this worker can make them and an engine answers within some seconds, else processes of this machine. */
export async function chooseBackend(wish: 'auto' | BackendName, env: NodeJS.ProcessEnv): Promise<ChosenBackend> {
  if (wish !== 'auto') return { backend: wish, why: 'as asked for' }
  const { availableBackendNames, checkEngine, findEngine, openEngine } = await import('@openoz/worker')
  if (!availableBackendNames.includes('docker')) return { backend: 'direct', why: 'this version makes no containers' }
  try {
    const log = createLogger({ name: 'engine', level: 'error', env })
    await using engine = openEngine(findEngine(env), { env, log })
    const { version } = await checkEngine(engine)
    return { backend: 'docker', why: `Docker ${version} answers at ${engine.address.display}` }
  } catch (error) {
    const [first = ''] = (error instanceof Error ? error.message : String(error)).split(/(?<=\.) /)
    return { backend: 'direct', why: `no container engine can be used. ${first}` }
  }
}
