import { AppError, agentFolder } from '@openoz/protocol'
import { findEngine, findKeptTasks, type KeptTask, openEngine, removeKeptTask } from '@openoz/worker'
import type { CommandContext } from './command-context.ts'
import { createLogger } from './log.ts'
import { type Output, printJsonList } from './output.ts'

/** Prints what there is of a run, and how to look into it; with `removes` it is removed then. Rejects with `kept_container_not_found`. */
export async function inspectKept(
  { output, env, progress }: Pick<CommandContext, 'output' | 'env' | 'progress'>,
  { runId, removes }: { runId: string; removes: boolean },
): Promise<void> {
  const log = createLogger({ name: 'engine', level: 'error', env })
  progress.waitFor('the engine')
  await using engine = openEngine(findEngine(env), { env, log })
  const found = await findKeptTasks(engine, runId)
  if (found.length === 0) throw new AppError('kept_container_not_found', { runId })
  if (removes) for (const task of found) await removeKeptTask(engine, task)
  if (output.isJson) return printJsonList(output, found)
  if (removes) for (const { container } of found) output.line(`Removed ${container} and its volumes.`)
  else for (const task of found) printTask(output, task)
}

function printTask(output: Output, task: KeptTask): void {
  const { container, image, state, exit_code: exitCode, out_of_memory: hadOomKill, volumes } = task
  const isOver = state !== 'running'
  const memory = hadOomKill ? ', a process in it was ended for memory' : ''
  const rows: [string, string][] = [
    ['container', container],
    ['execution', task.execution_id],
    ['worker', task.worker_id],
    ['image', image],
    ['state', isOver ? `${state}, exit code ${exitCode}${memory}, since ${task.finished_at}` : state],
    ...volumes.map(({ name, path }): [string, string] => ['volume', `${name} at ${path}`]),
  ]
  for (const [name, value] of rows) output.line(`${name.padEnd(11)}${value}`)
  output.line()
  for (const command of waysIn(task)) output.line(`  ${command}`)
  output.line()
}

/** For a shell of the operator's, on this machine. */
function waysIn({ container, image }: KeptTask): string[] {
  const shell = `docker run --rm -it --volumes-from ${container} -w /workspace --entrypoint`
  return [
    `docker logs ${container}`,
    `docker cp ${container}:/workspace .`,
    `${shell} /bin/sh ${image}`,
    // Where the image has no shell.
    `${shell} ${agentFolder}/bin/dash ${image}`,
    `docker commit ${container} oz-inspect && ${shell} /bin/sh oz-inspect`,
  ]
}
