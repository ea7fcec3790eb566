import { execFileSync } from 'node:child_process'
import { cpus, loadavg, release, totalmem, type } from 'node:os'

/** Where and of what the figures are: without it nobody can compare them with theirs. */
export function describeMachine(): string[] {
  const processors = cpus()
  const memoryGb = Math.round(totalmem() / 1024 ** 3)
  const [load = 0] = loadavg()
  const lines = [
    `Machine: ${processors.length} × ${processors[0]?.model.trim() ?? 'unknown processor'}, ${memoryGb} GB, ${type()} ${release()}, Node ${process.versions.node}`,
    `Commit: ${describeCommit()}`,
    `Load before the first benchmark: ${load.toFixed(2)}`,
  ]
  if (load > processors.length / 2)
    lines.push('Something else was running: compare ratios at most, no figure is one of the product alone.')
  return lines
}

function describeCommit(): string {
  const git = (...args: string[]) =>
    execFileSync('git', args, {
      cwd: import.meta.dirname,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim()
  try {
    const changed = git('status', '--porcelain').split('\n').filter(Boolean).length
    const commit = git('log', '-1', '--format=%h, %cs')
    return changed === 0 ? commit : `${commit}, with ${changed} files changed since`
  } catch {
    return 'unknown (no git)'
  }
}
