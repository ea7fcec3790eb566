import type { Command } from 'commander'
import { expect, test } from 'vitest'
import { loadProgram } from './top-commands.ts'

test('the help of every command fits an ordinary terminal', async () => {
  const everyCommand = (command: Command): Command[] => [command, ...command.commands.flatMap(everyCommand)]
  for (const command of everyCommand(await loadProgram())) {
    command.configureOutput({ getOutHelpWidth: () => 80 })
    const tooLong = command
      .helpInformation()
      .split('\n')
      .filter((line) => line.length > 80)
    expect(tooLong, command.name()).toEqual([])
  }
})
