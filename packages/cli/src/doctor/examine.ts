import type { GlobalOptions } from '../global-options.ts'
import { checkControlPlane } from './control-plane.ts'
import type { Finding } from './finding.ts'
import { checkDataDir, checkDisk, checkGit, checkIsolation, checkNode, checkUnshare } from './machine.ts'

/** All checks, in the order in which one would look for a fault. None of them changes anything. */
export async function examine(options: GlobalOptions, env: NodeJS.ProcessEnv): Promise<Finding[]> {
  const [git, dataDir, disk, isolation, controlPlane] = await Promise.all([
    checkGit(),
    checkDataDir(env),
    checkDisk(env),
    checkIsolation(env),
    checkControlPlane(options, env),
  ])
  return [checkNode(process.versions.node), git, dataDir, disk, checkUnshare(env), isolation, ...controlPlane]
}
