import type { BackendName } from '@openoz/worker'
import { type ChosenBackend, chooseBackend } from '../join/choose-backend.ts'
import { createLogger } from '../log.ts'

/** What `--backend` of `oz up` may say. */
export const localBackendWishes = ['auto', 'direct', 'docker'] as const
export type LocalBackendWish = (typeof localBackendWishes)[number]

export interface LocalBackend extends ChosenBackend {
  backend: BackendName
  /** What `docker` runs its agents from: the folder of a bundle for the engine's CPU. */
  bundle?: string
}

/**
 * What the worker beside a control plane runs its tasks in. Without a wish it is `direct`: an engine that happens to be installed changes nothing.
 * Before anything is started, so that what keeps containers from being made is the answer to the command, and not the log of a worker that is started
 * again and again. Rejects with what is wrong with the engine that was asked for (`engine_unreachable`, …), or with its agent (`agent_bundle_missing`, …).
 */
export async function chooseLocalBackend(
  wish: LocalBackendWish | undefined,
  env: NodeJS.ProcessEnv,
): Promise<LocalBackend> {
  if (wish === undefined) return { backend: 'direct', why: 'the default' }
  const chosen = await chooseBackend(wish, env)
  if (chosen.backend !== 'docker') return chosen
  const { checkEngine, findBundle, findEngine, openEngine } = await import('@openoz/worker')
  await using engine = openEngine(findEngine(env), { env, log: createLogger({ name: 'engine', level: 'error', env }) })
  const { platform } = await checkEngine(engine)
  const { folder } = await findBundle({ platform, env })
  return { ...chosen, bundle: folder }
}
