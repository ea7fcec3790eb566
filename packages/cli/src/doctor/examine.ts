import type { GlobalOptions } from '../global-options.ts'
import { checkControlPlane } from './control-plane.ts'
import { checkContainers } from './engine.ts'
import type { Finding } from './finding.ts'
import {
  checkDataDir,
  checkDisk,
  checkGit,
  checkIsolation,
  checkNode,
  checkUnshare,
  checkWorkspaces,
} from './machine.ts'

/** All checks, in the order in which one would look for a fault. None of them changes anything. */
export async function examine(options: GlobalOptions, env: NodeJS.ProcessEnv): Promise<Finding[]> {
  const [git, dataDir, disk, workspaces, isolation, containers, controlPlane] = await Promise.all([
    checkGit(),
    checkDataDir(env),
    checkDisk(env),
    checkWorkspaces(env),
    checkIsolation(env),
    checkContainers(env),
    checkControlPlane(options, env),
  ])
  return [
    checkNode(process.versions.node),
    git,
    dataDir,
    disk,
    workspaces,
    checkUnshare(env),
    isolation,
    ...containers,
    ...controlPlane,
  ]
}
