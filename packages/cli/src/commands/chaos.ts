import { randomInt } from 'node:crypto'
import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { AppError } from '@openoz/protocol'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { type FaultKind, faultKinds, planRound, type RoundBackend } from '../chaos/plan.ts'
import { type CommandContext, run, withExamples } from '../command-context.ts'
import { printJson } from '../output.ts'
import { onStopSignals } from '../stop-signals.ts'
import { wholeNumber } from '../whole-number.ts'

interface ChaosOptions {
  runs: number
  seed?: string
  kill?: FaultKind[]
  servers: number
  backend: RoundBackend
  image?: string
  keep?: boolean
  guard?: string
}

export function registerChaos(program: Command): void {
  const command = program
    .command('chaos')
    .description(
      'kill parts of a private copy of everything while runs are at work, and check that nothing is lost or done twice',
    )
    .option('--runs <n>', 'how many runs are sent (default: 20)', wholeNumber({ from: 1, to: 10_000 }), 20)
    .option('--seed <seed>', 'decides runs and faults; the report names it (default: a new one)')
    .option(
      '--kill <kinds>',
      `what is damaged: ${faultKinds.join(', ')}, or none (default: all that there is)`,
      readKinds,
    )
    .option(
      '--servers <n>',
      'how many control planes share the database (default: 2)',
      wholeNumber({ from: 1, to: 4 }),
      2,
    )
    .addOption(
      new Option('--backend <name>', 'of the workers (default: direct)')
        .choices(['direct', 'docker'])
        .default('direct' satisfies RoundBackend, 'direct'),
    )
    .option(
      '--image <name>',
      'of the containers, on the engine that a worker would find (default: an engine of the round’s own, and an image of this machine’s programs)',
    )
    .option('--keep', 'keep the folder with logs and evidence, also when nothing was found')
    .addOption(new Option('--guard <folder>').hideHelp())
    .action(run<ChaosOptions>((context, { options }) => chaos(context, options)))
  withExamples(command, [
    'oz chaos',
    'oz chaos --runs 300 --seed 7 --kill worker,agent,server,database,network --servers 2',
    'oz chaos --backend docker --runs 50 --kill worker,agent,engine',
    'oz chaos --kill none --output-format json',
  ])
  command.addHelpText('after', '\nExit code: 1 when something was found; the folder with its logs is kept then.')
}

/** None given: all. An empty list or `none`: a calm round. */
function readKinds(value: string): FaultKind[] {
  const names = value.split(',').map((name) => name.trim())
  if (names.join() === '' || names.join() === 'none') return []
  return names.map((name) => {
    const kind = faultKinds.find((known) => known === name)
    if (!kind) throw new InvalidArgumentError(`${name} is none of ${faultKinds.join(', ')}.`)
    return kind
  })
}

/** An engine of others is not for us to kill, and where agents are no containers there is none. */
async function chooseKinds({ kill, backend, image }: ChaosOptions): Promise<FaultKind[]> {
  const { privateEngineProblem } = await import('../chaos/private-engine.ts')
  const problem = engineProblem({ backend, image }, privateEngineProblem)
  if (problem === undefined) return kill ?? [...faultKinds]
  if (kill?.includes('engine')) throw new AppError('flag_invalid', { option: '--kill engine', problem })
  return kill ?? faultKinds.filter((kind) => kind !== 'engine')
}

function engineProblem(
  { backend, image }: Pick<ChaosOptions, 'backend' | 'image'>,
  privateEngineProblem: () => string | undefined,
): string | undefined {
  if (backend !== 'docker') return 'without --backend docker there is no engine'
  if (image !== undefined) return 'with --image the engine is somebody else’s, and stays as it is'
  const problem = privateEngineProblem()
  return problem === undefined ? undefined : `it takes an engine of the round’s own, and ${problem}`
}

async function chaos({ output, progress }: CommandContext, options: ChaosOptions): Promise<number> {
  if (options.guard !== undefined) {
    const { guardRound } = await import('../chaos/guard.ts')
    await guardRound(options.guard)
    return 0
  }
  if (options.image !== undefined && options.backend !== 'docker') {
    throw new AppError('flag_invalid', { option: '--image', problem: 'it is for --backend docker' })
  }
  if (process.platform === 'win32') throw new AppError('operation_not_supported', { what: '`oz chaos` on Windows' })
  const { performRound } = await import('../chaos/round.ts')
  const { createRoundFolder, removeRoundFolder } = await import('../chaos/round-folder.ts')
  const { makeReport, printReport } = await import('../chaos/report.ts')
  const { verify } = await import('../chaos/verify.ts')
  const { runs, servers, backend, image, seed = String(randomInt(1_000_000)), keep = false } = options
  const kinds = await chooseKinds(options)
  const plan = planRound({ seed, runs, servers, backend, kinds })
  using stop = onStopSignals()
  const folder = createRoundFolder()
  output.note(`Round ${seed}: ${runs} runs, ${plan.faults.length} faults, in ${folder.path}`)
  const startedAt = performance.now()
  const onProgress = (text: string) =>
    output.note(`${String(Math.round((performance.now() - startedAt) / 1000)).padStart(5)} s  ${text}`)
  let mustKeep = keep
  try {
    const result = await performRound({ plan, folder, image, onProgress, signal: stop.first })
    const findings = verify(result.evidence)
    mustKeep ||= findings.length > 0
    // Databases and homes are large, and what they held is in the evidence.
    if (!keep) rmSync(folder.machine, { recursive: true, force: true })
    const report = { ...makeReport(result, { findings, image }), ...(mustKeep ? { folder: folder.path } : {}) }
    writeFileSync(`${folder.path}/report.json`, `${JSON.stringify(report, null, 2)}\n`, { mode: 0o600 })
    if (output.isJson) printJson(output, report)
    else printReport(output, report)
    if (findings.length === 0) return 0
    throw new AppError('chaos_failed', { count: findings.length, seed, folder: folder.path })
  } catch (error) {
    if (stop.first.aborted) return 130
    // Nothing to read where nothing had begun.
    mustKeep ||= readdirSync(folder.logs).length > 0
    throw error
  } finally {
    progress[Symbol.dispose]()
    if (!mustKeep || stop.first.aborted) removeRoundFolder(folder)
  }
}
