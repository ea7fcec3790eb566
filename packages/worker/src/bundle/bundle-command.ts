import { type AgentManifest, agentFolder } from '@openoz/protocol'
import { bundleLoader } from './bundle-file.ts'

/** The words that start `oz` as a task in a container with the bundle at `/agent`, under the guard of its lease; its arguments follow. */
export function taskCommand({ is_patched: isPatched }: Pick<AgentManifest, 'is_patched'>): string[] {
  const task = `${agentFolder}/bin/oz-task`
  const words = isPatched
    ? [task]
    : [bundleLoader, '--library-path', `${agentFolder}/lib`, `${agentFolder}/bin/dash`, task]
  return [...words, 'oz']
}
