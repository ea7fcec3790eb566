import type { CommandContext } from '../command-context.ts'
import type { Connection } from '../connection.ts'
import { printJsonList } from '../output.ts'
import { plainText } from '../plain-text.ts'
import { paintDiff } from '../watch/diff-text.ts'
import { downloadDiff } from './workspace-download.ts'

/** A pipe gets the diff byte for byte, to be applied; a terminal gets it coloured and without control characters. */
export async function printWorkspaceDiff(
  { connection, output }: CommandContext & { connection: Connection },
  runId: string,
  attempt?: number,
): Promise<number> {
  const workspace = await connection.client.runs.workspace(runId, attempt === undefined ? {} : { attempt })
  const repositories = await Promise.all(
    workspace.repositories.map(async (repository, index) => ({
      ...repository,
      diff: repository.has_diff ? await downloadDiff(connection, { runId, index, attempt }) : '',
    })),
  )
  if (output.isJson) {
    printJsonList(output, repositories)
    return 0
  }
  for (const { dir, diff } of repositories) {
    if (repositories.length > 1 && diff !== '') output.note(`${dir}:`)
    output.write(output.columns === undefined ? diff : paintDiff(plainText(diff), output.colors))
  }
  if (repositories.every(({ diff }) => diff === '')) output.note('The run changed nothing.')
  for (const what of workspace.left_out) output.note(`Not saved: ${what}`)
  return 0
}
