import { Argument, type Command } from 'commander'
import { run, withExamples } from '../command-context.ts'
import type { Shell } from '../completions/shell-scripts.ts'

const shells = ['bash', 'zsh', 'fish'] as const satisfies readonly Shell[]

export function registerCompletions(program: Command, loadProgram: () => Promise<Command>): void {
  const command = program
    .command('completions')
    .addArgument(new Argument('<shell>').choices(shells))
    .description('print what completes this command line in a shell')
    .action(
      run(async ({ output }, { args }) => {
        const { commandNodes } = await import('../completions/command-tree.ts')
        const { shellScripts } = await import('../completions/shell-scripts.ts')
        output.write(shellScripts[args[0] as Shell](commandNodes(await loadProgram())))
        return 0
      }),
    )
  withExamples(command, [
    'eval "$(oz completions bash)"',
    'source <(oz completions zsh)',
    'oz completions fish > ~/.config/fish/completions/oz.fish',
  ])
}
