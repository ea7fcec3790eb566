import type { Command } from 'commander'
import { run, withExamples } from '../command-context.ts'
import { printJsonList } from '../output.ts'

export function registerDoctor(program: Command): void {
  const command = program
    .command('doctor')
    .description('check this machine and the control plane, and say what to do')
    .action(
      run(async ({ options, output, env, progress }) => {
        const { examine } = await import('../doctor/examine.ts')
        progress.waitFor('the checks')
        const findings = await examine(options, env)
        if (output.isJson) printJsonList(output, findings)
        else {
          const { colors } = output
          const paints = { ok: colors.green, warn: colors.yellow, fail: colors.red }
          const width = Math.max(...findings.map(({ check }) => check.length))
          for (const { level, check, text, remedy } of findings) {
            output.line(`${paints[level](level.padEnd(4))}  ${check.padEnd(width)}  ${text}`)
            if (remedy !== undefined) output.line(`${' '.repeat(width + 8)}${colors.dim(remedy)}`)
          }
        }
        return findings.some(({ level }) => level === 'fail') ? 1 : 0
      }),
    )
  withExamples(command, ['oz doctor', 'oz doctor --output-format json'])
  command.addHelpText('after', '\nExit code: 1 when a check failed; warnings do not count.')
}
