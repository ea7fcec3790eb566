import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { bundleFolder } from '@openoz/machine'
import { type AgentPlatform, AppError } from '@openoz/protocol'
import { type AgentBundle, readBundle } from './read-manifest.ts'

interface BundleWish {
  /** Of the containers’ machine, which is not always this one. */
  platform: AgentPlatform
  /** From the config file. */
  configured?: string
  env: NodeJS.ProcessEnv
}

/**
 * The agent bundle for containers of this platform. One that is named (in the config file, or by OZ_AGENT_BUNDLE) is the one to take; else the one
 * that we run from, and those beside the program: `agent`, and `agent-linux-arm64` or `agent-linux-amd64` for another CPU than ours.
 * OZ_AGENT_BUNDLES_DIR names one more folder of such. Only the manifest is read: `verifyBundle` looks at the rest. Rejects with
 * `agent_bundle_missing`, `agent_bundle_wrong_platform` or `agent_bundle_broken`.
 */
export async function findBundle(
  { platform, configured, env }: BundleWish,
  near: string[] = placesNear(),
): Promise<AgentBundle> {
  const named = configured ?? (env.OZ_AGENT_BUNDLE || undefined)
  const dirs = env.OZ_AGENT_BUNDLES_DIR ? [env.OZ_AGENT_BUNDLES_DIR, ...near] : near
  const ownName = `agent-${platform.replace('/', '-')}`
  const unnamed = [bundleFolder(), ...dirs.flatMap((dir) => [join(dir, 'agent'), join(dir, ownName)])]
  const places = (named === undefined ? unnamed.filter((place) => place !== undefined) : [named]).map((place) =>
    resolve(place),
  )
  let other: AgentBundle | undefined
  for (const place of places) {
    const bundle = await readBundle(place)
    if (bundle?.manifest.platform === platform) return bundle
    other ??= bundle
  }
  if (!other) throw new AppError('agent_bundle_missing', { platform, places: places.join(', ') })
  const { folder, manifest } = other
  throw new AppError('agent_bundle_wrong_platform', { folder, found: manifest.platform, wanted: platform })
}

/** `dist/` of the clone for sources; else where this program lies: in `dist/`, or in a bundle's `app/`, beside whose bundle others may be. */
function placesNear(): string[] {
  const here = dirname(fileURLToPath(import.meta.url))
  if (import.meta.url.endsWith('.ts')) return [join(here, '../../../../dist')]
  const bundle = bundleFolder()
  return bundle === undefined ? [here] : [dirname(bundle)]
}
