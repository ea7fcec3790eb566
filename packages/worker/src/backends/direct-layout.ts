import { join } from 'node:path'
import { userFolders } from '@openoz/machine'
import type { WorkerOptions } from '../worker-options.ts'

/** The folders of the direct backend; see the operating interface in `docs/configuration.md`. */
interface DirectLayout {
  stateDir: string
  workspaceRoot: string
}

export function directLayout({ direct, env }: Pick<WorkerOptions, 'direct' | 'env'>): DirectLayout {
  const isRoot = process.getuid?.() === 0
  const stateDir = direct.stateDir ?? (isRoot ? '/var/lib/oz' : userFolders(env).state)
  return { stateDir, workspaceRoot: direct.workspaceRoot ?? join(stateDir, 'workspaces') }
}
