import { hostname } from 'node:os'
import { type Command, Option } from 'commander'
import { type CommandContext, run, withExamples } from '../command-context.ts'
import { isSameServer, openConnection } from '../connection.ts'
import { createLogger } from '../log.ts'
import { printJson } from '../output.ts'
import { readSavedLogin, savedLoginFile, saveLogin } from '../saved-login.ts'
import { addServerFlags, serverOptions } from '../server-flags.ts'
import { type LocalBackendWish, localBackendWishes } from '../stack/local-backend.ts'
import { type LocalStack, startLocalStack } from '../stack/local-stack.ts'
import { stopInTurn } from '../stack/stop-in-turn.ts'
import { workerIdFromHost } from '../stack/worker-id.ts'
import { onStopSignals } from '../stop-signals.ts'

interface UpOptions extends Record<string, unknown> {
  workerId?: string
  backend?: LocalBackendWish
  worker: boolean
}

export function registerUp(program: Command): void {
  const command = program
    .command('up')
    .description('start control plane and worker on this machine; the first start saves a login for the other commands')
    .option('--worker-id <name>', `name that runs are sent to (default: ${workerIdFromHost(hostname())})`)
    .addOption(
      new Option(
        '--backend <name>',
        'what runs tasks: direct (processes of this machine, the default), docker (a container each), or auto (docker where an engine answers, else direct)',
      ).choices(localBackendWishes),
    )
    .option('--no-worker', 'the control plane alone')
  addServerFlags(command).action(run<UpOptions>((context, { options }) => up(context, options)))
  withExamples(command, [
    'oz up',
    'ANTHROPIC_API_KEY=… oz up --worker-id laptop',
    'oz up --backend auto',
    'oz up --listen 127.0.0.1:0 --data-dir /tmp/oz',
  ])
}

async function up(context: CommandContext, options: UpOptions): Promise<number> {
  const { options: globals, output, env } = context
  const server = serverOptions(options, globals, env)
  const log = createLogger({ name: 'oz', level: server.logLevel, env })
  const workerId = options.workerId ?? workerIdFromHost(hostname())
  const worker = options.worker ? { workerId, backend: options.backend } : undefined
  using signals = onStopSignals()
  const stack = await startLocalStack({ server, worker, env, log })
  try {
    await keepLogin(context, stack)
    const { url, pid } = stack.server
    if (output.isJson) printJson(output, { type: 'server_ready', url, pid })
    else output.line(`openoz is ready at ${url}`)
    if (stack.worker) sayWhenConnected(context, { worker: stack.worker, workerId })
  } catch (error) {
    await stack.stop()
    throw error
  }
  const { stop, stopNow } = stack
  // Awaited here: the signals are listened to until the end of this block.
  return await stopInTurn({ signals, ended: stack.server.stopped, stop, stopNow, log })
}

function sayWhenConnected(
  { output }: CommandContext,
  { worker, workerId }: { worker: NonNullable<LocalStack['worker']>; workerId: string },
): void {
  const { backend, why } = worker
  worker.connected.then(
    () => {
      if (output.isJson) return printJson(output, { type: 'worker_ready', worker_id: workerId, backend, why })
      output.note(`Worker ${workerId} is connected. Backend: ${backend} (${why.replace(/\.$/, '')}).`)
      output.note('Try: oz agent run-cloud --prompt "…" --watch')
    },
    () => {
      // The log has said why.
    },
  )
}

/** A login for another server is left alone, and so is one that works. With our own key it is ours, from before the address changed. */
async function keepLogin({ output, env }: CommandContext, { connection }: LocalStack): Promise<void> {
  const { serverUrl, apiKey } = connection
  const saved = await readSavedLogin(env).catch(() => undefined)
  if (saved && isSameServer(saved.server_url, serverUrl)) {
    if (saved.api_key === apiKey || (await isAccepted(serverUrl, saved.api_key, env))) return
  } else if (saved && saved.api_key !== apiKey) {
    output.note(`The saved login is for ${saved.server_url}; for this one: --server-url ${serverUrl} and OZ_API_KEY.`)
    return
  }
  await saveLogin({ server_url: serverUrl, api_key: apiKey }, env)
  output.note(`Saved the login for other commands in ${savedLoginFile(env)}.`)
}

async function isAccepted(serverUrl: string, apiKey: string, env: NodeJS.ProcessEnv): Promise<boolean> {
  await using connection = openConnection({ serverUrl, apiKey, env })
  return connection.client.whoami().then(
    () => true,
    () => false,
  )
}
