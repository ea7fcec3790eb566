import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { showCommand } from './run-command.ts'

/** `npm test [-- ARGUMENTS OF VITEST]`: all tests, and `N passed, N failed` as the last line. */

interface Report {
  numPassedTests: number
  numFailedTests: number
  testResults: { status: string; assertionResults: { status: string }[] }[]
}

const folder = await mkdtemp(join(tmpdir(), 'openoz-test-'))
try {
  const file = join(folder, 'report.json')
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`]
  const exitCode = await showCommand(['vitest', 'run', ...reporters, ...process.argv.slice(2)])
  console.log(`\n${summary(JSON.parse(await readFile(file, 'utf8')) as Report)}`)
  process.exitCode = exitCode
} catch {
  // vitest ended before it could report, and has said why.
  console.log('\n0 passed, 1 failed')
  process.exitCode = 1
} finally {
  await rm(folder, { recursive: true, force: true })
}

/** A file that could not even be loaded has no tests in the report; it counts as one that failed. */
function summary({ numPassedTests, numFailedTests, testResults }: Report): string {
  const broken = testResults.filter(
    ({ status, assertionResults }) => status === 'failed' && !assertionResults.some((test) => test.status === 'failed'),
  )
  return `${numPassedTests} passed, ${numFailedTests + broken.length} failed`
}
