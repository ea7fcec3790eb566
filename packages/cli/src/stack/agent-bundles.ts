import type { AgentBundles } from '@openoz/server'

/** What a control plane installs other machines with: the bundles that lie beside this program, or where variables say. */
export function agentBundles(env: NodeJS.ProcessEnv): AgentBundles {
  return {
    async find(platform) {
      // Most control planes never install anything.
      const { findBundle, packBundle } = await import('@openoz/worker')
      const bundle = await findBundle({ platform, env })
      return { hash: bundle.manifest.hash, pack: () => packBundle(bundle) }
    },
  }
}
