import { linkSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { RoundFolder } from './round-folder.ts'

const everyMs = 300

/**
 * A worker removes what an agent has logged together with its task. A second name for the same file, given while the task is there, keeps it for
 * who reads the report.
 */
export function keepAgentLogs(folder: RoundFolder, stateDirs: readonly string[]): Disposable {
  const kept = join(folder.logs, 'agents')
  mkdirSync(kept, { mode: 0o700 })
  const known = new Set<string>()
  const look = () => {
    for (const tasks of stateDirs.map((dir) => join(dir, 'tasks'))) {
      for (const executionId of namesIn(tasks)) {
        if (known.has(executionId)) continue
        try {
          linkSync(join(tasks, executionId, 'agent.log'), join(kept, `${executionId}.log`))
          known.add(executionId)
        } catch {
          // Not there yet, or not any more.
        }
      }
    }
  }
  const timer = setInterval(look, everyMs)
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}
