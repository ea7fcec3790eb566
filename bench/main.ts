/**
 * `npm run bench [-- --json FILE] [--only NAME]`: every figure with a control that was measured in the same run, on the same machine, since
 * absolute times on a busy box of two cores say little. Process figures are those of `dist/`, which is built first.
 */
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { appendBenchmark } from './append.ts'
import { assignmentBenchmark } from './assignment.ts'
import { cloneBenchmark } from './clone.ts'
import { coldStartBenchmark } from './cold-start.ts'
import { gatewayBenchmark } from './gateway.ts'
import type { Measurement } from './measurement.ts'
import { memoryBenchmark } from './memory.ts'
import { startBenchmark } from './start.ts'
import { steeringBenchmark } from './steering.ts'

const { values } = parseArgs({
  options: { json: { type: 'string' }, only: { type: 'string' }, 'no-build': { type: 'boolean' } },
})

const benchmarks = [
  startBenchmark,
  memoryBenchmark,
  coldStartBenchmark,
  cloneBenchmark,
  assignmentBenchmark,
  appendBenchmark,
  steeringBenchmark,
  gatewayBenchmark,
]
const chosen = benchmarks.filter((benchmark) => values.only === undefined || benchmark.name === values.only)
if (chosen.length === 0) {
  console.error(`No benchmark is called ${values.only}. There are: ${benchmarks.map(({ name }) => name).join(', ')}.`)
  process.exit(2)
}

if (!values['no-build']) execFileSync('npm', ['run', '--silent', 'build'], { stdio: ['ignore', 2, 2] })
const results: Measurement[] = []
for (const benchmark of chosen) {
  console.error(`${benchmark.name} …`)
  results.push(...(await benchmark.run()))
}

if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(results, null, 2)}\n`)
console.log('| what | value | control | ratio | target | met |')
console.log('| --- | --- | --- | --- | --- | --- |')
for (const { name, value, unit, control, ratio, target, ok } of results)
  console.log(
    `| ${name} | ${value} ${unit} | ${control ? `${control.value} ${unit} (${control.name})` : '–'} | ${ratio ?? '–'} | ${target} | ${ok ? 'yes' : 'no'} |`,
  )
