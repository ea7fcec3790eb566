import type { CommandContext } from '../command-context.ts'
import { connect } from '../connection.ts'
import { type Output, printJson } from '../output.ts'
import { oneLine } from '../plain-text.ts'
import { type CheckoutRequest, type CheckoutResult, checkoutRun, findClone } from './checkout-run.ts'

export async function checkoutCommand(
  { options, output, env, progress }: CommandContext,
  request: Omit<CheckoutRequest, 'connection'>,
): Promise<number> {
  // Before anything is asked of the server: the commonest slip is the wrong folder.
  await findClone(request.repo)
  await using connection = await connect(options, env)
  progress.waitFor(connection.serverUrl)
  const result = await checkoutRun({ ...request, connection })
  if (output.isJson) printJson(output, result)
  else printCheckout(output, result)
  return 0
}

function printCheckout(output: Output, result: CheckoutResult): void {
  const { branch, repository, base } = result
  if (branch === null) {
    output.line(`Run ${result.run_id} changed nothing in this repository.`)
    return
  }
  output.line(`Branch ${output.colors.bold(branch)} in ${repository}: ${describeWork(result)}.`)
  if (base !== null) output.line(`Look at it: git -C ${repository} diff ${base.slice(0, 12)}..${branch}`)
  for (const what of result.left_out) output.note(`Not saved: ${oneLine(what)}`)
}

/** `2 commits and uncommitted work, 3 files changed, +10 -2` */
export function describeWork(result: CheckoutResult): string {
  const { commits, uncommitted, files_changed: files, insertions, deletions } = result
  const committed = commits === 1 ? '1 commit' : `${commits} commits`
  const work = uncommitted ? (commits === 0 ? 'uncommitted work' : `${committed} and uncommitted work`) : committed
  return `${work}, ${files} ${files === 1 ? 'file' : 'files'} changed, +${insertions} -${deletions}`
}
