import { randomInt } from 'node:crypto'
import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { AppError } from '@openoz/protocol'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { type FaultKind, faultKinds, planRound } from '../chaos/plan.ts'
import { type CommandContext, run, withExamples } from '../command-context.ts'
import { printJson } from '../output.ts'
import { onStopSignals } from '../stop-signals.ts'
import { wholeNumber } from '../whole-number.ts'

interface ChaosOptions {
  runs: number
  seed?: string
  kill: FaultKind[]
  servers: number
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
    .option('--kill <kinds>', `what is damaged: ${faultKinds.join(', ')}, or none (default: all of them)`, readKinds, [
      ...faultKinds,
    ])
    .option(
      '--servers <n>',
      'how many control planes share the database (default: 2)',
      wholeNumber({ from: 1, to: 4 }),
      2,
    )
    .option('--keep', 'keep the folder with logs and evidence, also when nothing was found')
    .addOption(new Option('--guard <folder>').hideHelp())
    .action(run<ChaosOptions>((context, { options }) => chaos(context, options)))
  withExamples(command, [
    'oz chaos',
    'oz chaos --runs 300 --seed 7 --kill worker,agent,server,database,network --servers 2',
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

async function chaos({ output, progress }: CommandContext, options: ChaosOptions): Promise<number> {
  if (options.guard !== undefined) {
    const { guardRound } = await import('../chaos/guard.ts')
    await guardRound(options.guard)
    return 0
  }
  if (process.platform === 'win32') throw new AppError('operation_not_supported', { what: '`oz chaos` on Windows' })
  const { performRound } = await import('../chaos/round.ts')
  const { createRoundFolder, removeRoundFolder } = await import('../chaos/round-folder.ts')
  const { makeReport, printReport } = await import('../chaos/report.ts')
  const { verify } = await import('../chaos/verify.ts')
  const { runs, servers, kill: kinds, seed = String(randomInt(1_000_000)), keep = false } = options
  const plan = planRound({ seed, runs, servers, kinds })
  using stop = onStopSignals()
  const folder = createRoundFolder()
  output.note(`Round ${seed}: ${runs} runs, ${plan.faults.length} faults, in ${folder.path}`)
  const startedAt = performance.now()
  const onProgress = (text: string) =>
    output.note(`${String(Math.round((performance.now() - startedAt) / 1000)).padStart(5)} s  ${text}`)
  let mustKeep = keep
  try {
    const result = await performRound({ plan, folder, onProgress, signal: stop.first })
    const findings = verify(result.evidence)
    mustKeep ||= findings.length > 0
    // Databases and homes are large, and what they held is in the evidence.
    if (!keep) rmSync(folder.machine, { recursive: true, force: true })
    const report = { ...makeReport(result, findings), ...(mustKeep ? { folder: folder.path } : {}) }
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
