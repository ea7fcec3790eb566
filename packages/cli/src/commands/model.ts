import type { Command } from 'commander'
import { runConnected, withExamples, withJq } from '../command-context.ts'
import { printList } from '../table.ts'

export function registerModel(program: Command): void {
  const group = program.command('model').description('list the models that can be used now')
  const list = group
    .command('list')
    .description('list the models of all configured providers')
    .action(
      runConnected(async ({ connection, output }) => {
        const { models, default_model_id, problems } = await connection.client.models.list()
        const ids = [...new Set(models.map((model) => model.id))].map((id) => ({ id }))
        const empty =
          'No model: the control plane has no provider. Start it with ANTHROPIC_API_KEY, OPENAI_API_KEY or OLLAMA_HOST set.'
        printList(output, { rows: ids, columns: [{ title: 'id', value: (row) => row.id, cutTo: 20 }], empty })
        if (!output.isJson && ids.length > 0) output.note(`Default: ${default_model_id}`)
        for (const { provider, problem } of problems) output.note(`${provider}: ${problem}`)
        return 0
      }),
    )
  withExamples(withJq(list), ['oz model list', 'oz model list --output-format json'])
}
