/**
 * `npm run bench [-- --json FILE] [--only NAME] [--quick] [--minutes N]`: every figure with a control that was measured in the same run, on the
 * same machine, since absolute times on a busy box of two cores say little. Each benchmark runs three times; the line shows the round in the
 * middle, and how far the others were from it. `--quick` runs everything once and small, to see that it works. Process figures are those of
 * `dist/`, which is built first.
 */
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { adoptionBenchmark } from './adoption.ts'
import { appendBenchmark } from './append.ts'
import { assignmentBenchmark } from './assignment.ts'
import { assignmentLoadedBenchmark } from './assignment-loaded.ts'
import { bundleVolumeBenchmark } from './bundle-volume.ts'
import { claimsBenchmark } from './claims.ts'
import { cloneBenchmark } from './clone.ts'
import { coldStartBenchmark } from './cold-start.ts'
import { disconnectsBenchmark } from './disconnects.ts'
import { dockerAdoptionBenchmark } from './docker-adoption.ts'
import { dockerMemoryBenchmark } from './docker-memory.ts'
import { dockerStartBenchmark } from './docker-start.ts'
import { dockerThroughputBenchmark } from './docker-throughput.ts'
import { fanOutBenchmark } from './fan-out.ts'
import { gatewayBenchmark } from './gateway.ts'
import { lifecycleBenchmark } from './lifecycle.ts'
import { describeMachine } from './machine.ts'
import { type Measurement, middleOf, NotMeasurable } from './measurement.ts'
import { memoryBenchmark } from './memory.ts'
import { mixedBenchmark } from './mixed.ts'
import { reconnectBenchmark } from './reconnect.ts'
import { startBenchmark } from './start.ts'
import { steadyBenchmark } from './steady.ts'
import { steeringBenchmark } from './steering.ts'
import { supervisedBenchmark } from './supervised.ts'

const { values } = parseArgs({
  options: {
    json: { type: 'string' },
    only: { type: 'string' },
    'no-build': { type: 'boolean' },
    quick: { type: 'boolean', default: false },
    minutes: { type: 'string' },
  },
})

const benchmarks = [
  startBenchmark,
  memoryBenchmark,
  supervisedBenchmark,
  coldStartBenchmark,
  bundleVolumeBenchmark,
  dockerStartBenchmark,
  dockerThroughputBenchmark,
  dockerMemoryBenchmark,
  cloneBenchmark,
  adoptionBenchmark,
  dockerAdoptionBenchmark,
  assignmentBenchmark,
  assignmentLoadedBenchmark,
  claimsBenchmark,
  lifecycleBenchmark,
  appendBenchmark,
  fanOutBenchmark,
  disconnectsBenchmark,
  steeringBenchmark,
  gatewayBenchmark,
  mixedBenchmark,
  reconnectBenchmark,
  steadyBenchmark,
]
const chosen = benchmarks.filter((benchmark) => values.only === undefined || benchmark.name === values.only)
if (chosen.length === 0) {
  console.error(`No benchmark is called ${values.only}. There are: ${benchmarks.map(({ name }) => name).join(', ')}.`)
  process.exit(2)
}
const minutes = Number(values.minutes ?? (values.quick ? 3 : 30))
if (!(minutes > 0)) {
  console.error('--minutes is a number above 0.')
  process.exit(2)
}

const about = describeMachine()
if (!values['no-build']) execFileSync('npm', ['run', '--silent', 'build'], { stdio: ['ignore', 2, 2] })
const results: Measurement[] = []
const leftOut: string[] = []
for (const benchmark of chosen) {
  const wanted = values.quick ? 1 : (benchmark.rounds ?? 3)
  const rounds: Measurement[][] = []
  try {
    while (rounds.length < wanted) {
      console.error(`${benchmark.name}, round ${rounds.length + 1} of ${wanted} …`)
      rounds.push(await benchmark.run({ isQuick: values.quick, minutes }))
    }
    results.push(...middleOf(rounds))
  } catch (error) {
    if (!(error instanceof NotMeasurable)) throw error
    leftOut.push(`NOT MEASURED: ${benchmark.name}: ${error.message}`)
    console.error(leftOut.at(-1))
  }
}

if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(results, null, 2)}\n`)
for (const line of about) console.log(line)
if (values.quick) console.log('A quick set: one round with less of everything, which is no measurement.')
console.log('\n| what | value | spread | control | ratio | target | met |')
console.log('| --- | --- | --- | --- | --- | --- | --- |')
for (const { name, value, unit, spread, control, ratio, target, ok } of results)
  console.log(
    `| ${name} | ${value} ${unit} | ${spread ? `${spread.low} – ${spread.high}` : '–'} | ${control ? `${control.value} ${unit} (${control.name})` : '–'} | ${ratio ?? '–'} | ${target} | ${ok ? 'yes' : 'no'} |`,
  )
for (const line of leftOut) console.log(`\n${line}`)
