import { runCommand } from './run-command.ts'

/** `npm run check`: everything that can be said without running the product. Takes seconds; a commit waits for it. */
const checks = {
  'format, lint and layers': ['biome', 'check', '--error-on-warnings', '.'],
  types: ['tsc', '--noEmit', '-p', '.'],
  'unused code and dependencies': ['knip', '--no-progress'],
}

const startedAt = performance.now()
const results = await Promise.all(
  Object.entries(checks).map(async ([name, command]) => ({ name, command, ...(await runCommand(command)) })),
)
const failed = results.filter(({ exitCode }) => exitCode !== 0)
for (const { name, command, output } of failed) {
  console.log(`${output.trimEnd()}\n\nfailed: ${name} (${command.join(' ')})\n`)
}
const seconds = ((performance.now() - startedAt) / 1000).toFixed(1)
if (failed.length === 0) console.log(`${results.map(({ name }) => name).join('; ')}: all fine (${seconds} s)`)
else
  console.log(`${failed.length} of ${results.length} checks failed (${seconds} s). \`npm run fix\` repairs formatting.`)
process.exitCode = failed.length === 0 ? 0 : 1
