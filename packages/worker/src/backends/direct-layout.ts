import { homedir } from 'node:os'
import { join } from 'node:path'
import type { WorkerOptions } from '../worker-options.ts'

/** The folders of the direct backend; see the operating interface in `docs/configuration.md`. */
interface DirectLayout {
  stateDir: string
  workspaceRoot: string
}

export function directLayout({ direct, env }: Pick<WorkerOptions, 'direct' | 'env'>): DirectLayout {
  const isRoot = process.getuid?.() === 0
  const home = env.HOME || homedir()
  const usual = isRoot ? '/var/lib/oz' : join(env.XDG_STATE_HOME || join(home, '.local', 'state'), 'openoz')
  const stateDir = direct.stateDir ?? usual
  return { stateDir, workspaceRoot: direct.workspaceRoot ?? join(stateDir, 'workspaces') }
}
