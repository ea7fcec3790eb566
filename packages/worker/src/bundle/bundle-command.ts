import { type AgentManifest, agentFolder } from '@openoz/protocol'
import { bundleLoader } from './bundle-file.ts'

const guard = `${agentFolder}/bin/oz-task`

/** The words that start `oz` as a task in a container with the bundle at `/agent`, under the guard of its lease; its arguments follow. */
export function taskCommand({ is_patched: isPatched }: Pick<AgentManifest, 'is_patched'>): string[] {
  const words = isPatched
    ? [guard]
    : [bundleLoader, '--library-path', `${agentFolder}/lib`, `${agentFolder}/bin/dash`, guard]
  return [...words, 'oz']
}

/** Whether it was made of a `taskCommand`. */
export function hasGuard(command: string[]): boolean {
  return command.includes(guard)
}
