import type { Command } from 'commander'
import { run, withExamples, withJq } from '../command-context.ts'

export function registerInspect(group: Command): void {
  const command = group
    .command('inspect')
    .argument('<run-id>')
    .description('look at a run’s container that a worker with --no-cleanup has kept on this machine’s engine')
    .option('--remove', 'remove it, with its volumes')
    .action(
      run<{ remove?: boolean }>(async (context, { args, options }) => {
        const { inspectKept } = await import('../kept-containers.ts')
        await inspectKept(context, { runId: args[0] ?? '', removes: options.remove ?? false })
        return 0
      }),
    )
  withExamples(withJq(command), [
    'oz worker inspect 0199f2ac-5b1e-7c40-9d3e-6f1b2a3c4d5e',
    'oz worker inspect 0199f2ac-5b1e-7c40-9d3e-6f1b2a3c4d5e --remove',
  ])
  command.addHelpText('after', '\nNo control plane is asked: only the engine, found as a worker here finds it.')
}
