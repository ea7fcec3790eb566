import type { Command } from 'commander'
import { runConnected, withExamples } from '../command-context.ts'
import { printJson } from '../output.ts'
import { renderFields } from '../table.ts'

export function registerWhoami(program: Command): void {
  const command = program
    .command('whoami')
    .description('say who the API key belongs to')
    .action(
      runConnected(async ({ connection, output }) => {
        const me = await connection.client.whoami()
        if (output.isJson) printJson(output, me)
        else if (output.format === 'text') output.line(`${me.type}:${me.uid}`)
        else
          output.line(
            renderFields([
              ['Name', me.display_name],
              ['Email', me.email ?? undefined],
              ['Id', `${me.type}:${me.uid}`],
              ['Key', `${me.key_scope} scope`],
              ['Teams', me.team_names.join(', ')],
              ['Server', connection.serverUrl],
            ]),
          )
        return 0
      }),
    )
  withExamples(command, ['oz whoami', 'oz whoami --output-format json'])
}
