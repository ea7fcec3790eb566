import { readFileSync } from 'node:fs'

/** Answers `--version` before anything else is loaded; false when something else was asked for. */
export function printVersion() {
  const args = process.argv.slice(2)
  if (args.length !== 1 || (args[0] !== '--version' && args[0] !== '-V')) return false
  process.stdout.write(`${readVersion()}\n`)
  return true
}

function readVersion() {
  // Written into the bundle by scripts/build.ts.
  if (typeof OZ_VERSION === 'string') return OZ_VERSION
  return JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version
}
