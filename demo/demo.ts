import { createWriteStream } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import {
  type CheckoutResult,
  checkoutRun,
  createOutput,
  describeWork,
  type LocalStack,
  onStopSignals,
  reportError,
  showSession,
  startLocalStack,
} from '@openoz/cli'
import { AppError } from '@openoz/protocol'
import { readServerOptions } from '@openoz/server'
import { pino } from 'pino'
import {
  type DemoFolder,
  type DemoRepository,
  makeDemoFolder,
  makeSampleRepository,
  sourcesOf,
  useRepository,
} from './demo-folder.ts'
import { clearEngine } from './engine-cleanup.ts'
import { chooseModel, type ModelChoice } from './model-choice.ts'
import { type DemoOptions, readDemoOptions, usage } from './options.ts'

/**
 * `npm run demo`: everything for real, on a private data folder and a free port, for as long as one run takes. What it starts it ends, also on
 * Ctrl-C and when something fails; only the repository with the result stays.
 */
const workerId = 'demo'

/** A cold start of the database on a slow disk takes seconds; a worker that is not there after this will not come. */
const workerTimeoutMs = 60_000

interface Demo {
  options: DemoOptions
  model: ModelChoice
  repository: DemoRepository
  stack: LocalStack
  signal: AbortSignal
}

process.exitCode = await main(process.argv.slice(2), process.env)

async function main(args: string[], env: NodeJS.ProcessEnv): Promise<number> {
  let folder: DemoFolder | undefined
  try {
    const options = readDemoOptions(args)
    if (options === 'help') {
      console.log(usage)
      return 0
    }
    using stop = onStopSignals()
    stop.second.addEventListener('abort', () => process.exit(130), { once: true })
    await using model = await chooseModel(env, { needsReal: options.repo !== undefined })
    folder = await makeDemoFolder()
    const repository =
      options.repo === undefined
        ? await makeSampleRepository(folder, options.testCommand)
        : await useRepository(folder, options.repo)
    say(options, `\n${model.text}\n`)
    say(options, 'Starting PostgreSQL, control plane and worker …')
    const stack = await startStack(folder, { model, options }).catch(async (error: unknown) => {
      await repository.discard()
      throw error
    })
    try {
      const signal = stop.first
      return await Promise.race([runDemo({ options, model, repository, stack, signal }), interrupted(signal)])
    } finally {
      await stack.stop()
      if (stack.worker?.backend === 'docker') await clearEngine(join(folder.private, 'state'), env)
    }
  } catch (error) {
    const exitCode = reportError(error, {
      format: 'pretty',
      debug: env.DEBUG !== undefined,
      stderr: process.stderr,
      env,
    })
    if (folder) await printLogs(folder)
    return exitCode
  } finally {
    await folder?.remove()
  }
}

async function startStack(
  folder: DemoFolder,
  { model, options: { backend } }: Pick<Demo, 'model' | 'options'>,
): Promise<LocalStack> {
  const place = (name: string) => join(folder.private, name)
  // As root the database runs as another user, who has to be able to pass through.
  await mkdir(place('workspaces'), { mode: 0o711 })
  const env = { ...model.env, XDG_CONFIG_HOME: place('config'), OZ_BOOTSTRAP_API_KEY: '' }
  const serverLog = createWriteStream(place('server.log'))
  const workerLog = createWriteStream(place('worker.log'))
  const options = readServerOptions({ listen: '127.0.0.1:0', dataDir: place('data') }, { ...env, DATABASE_URL: '' })
  const stack = await startLocalStack({
    server: options,
    worker: {
      ...{ workerId, backend, volumes: [`${sourcesOf(folder)}:${sourcesOf(folder)}:ro`] },
      workspaceRoot: place('workspaces'),
      stateDir: place('state'),
      onLog: (chunk) => workerLog.write(chunk),
    },
    env,
    log: pino({ name: 'server', level: 'info' }, serverLog),
  })
  const timeout = AbortSignal.timeout(workerTimeoutMs)
  const tooLate = new Promise<never>((_, reject) => {
    timeout.addEventListener('abort', () => reject(new AppError('worker_not_found', { workerId })), { once: true })
  })
  try {
    await Promise.race([stack.worker?.connected, tooLate])
    return stack
  } catch (error) {
    await stack.stop()
    throw error
  }
}

async function runDemo({ options, model, repository, stack, signal }: Demo): Promise<number> {
  const { connection } = stack
  const { backend, why } = stack.worker ?? {}
  const place = options.backend === 'direct' ? '' : ` Backend: ${backend} (${why}).`
  say(options, `Ready at ${stack.server.url}. Worker ${workerId} is connected.${place}\n`)
  const { run_id: runId } = await connection.client.runs.create({
    prompt: options.prompt,
    title: basename(repository.clone),
    config: {
      worker_host: workerId,
      idle_timeout_minutes: 0,
      environment: {
        ...(backend === 'docker' && { docker_image: options.image }),
        source_repos: [{ url: repository.source, dir: basename(repository.clone) }],
      },
    },
  })
  say(options, `Run ${runId} on ${repository.clone}`)
  const streams = { stdout: options.isJson ? process.stderr : process.stdout, stderr: process.stderr, env: process.env }
  const output = createOutput('pretty', streams)
  let state = await showSession({ connection, output }, { runId, signal })
  if (state === 'BLOCKED' && options.answer !== undefined) {
    say(options, `\nThe demo answers: oz run follow-up ${runId} "${options.answer}"`)
    const after = await connection.client.runs.get(runId)
    await connection.client.runs.followUp(runId, { message: options.answer })
    state = await showSession({ connection, output }, { runId, after, signal })
  }
  const checkout = await collect(stack, { runId, repository })
  printResult({ options, model, repository, state, checkout })
  if (options.isJson) {
    const { clone, testCommand: test_command } = repository
    const result = { run_id: runId, state, repository: clone, branch: checkout?.branch ?? null, test_command }
    console.log(JSON.stringify({ type: 'demo_result', ...result }))
  }
  return state === 'SUCCEEDED' ? 0 : 1
}

/** A run that failed before it had a workspace left nothing to collect. */
async function collect(
  { connection }: LocalStack,
  { runId, repository }: { runId: string; repository: DemoRepository },
): Promise<CheckoutResult | undefined> {
  try {
    return await checkoutRun({ connection, runId, repo: repository.clone })
  } catch (error) {
    console.error(error instanceof Error ? error.message : error)
    return undefined
  }
}

function printResult(result: {
  options: DemoOptions
  model: ModelChoice
  repository: DemoRepository
  state: string
  checkout: CheckoutResult | undefined
}): void {
  const { options, model, repository, state, checkout } = result
  const { clone, testCommand: test } = repository
  say(options, `\nThe run ended: ${state}.`)
  if (checkout?.branch) {
    const { branch, base } = checkout
    say(options, `Branch ${branch} in ${clone}: ${describeWork(checkout)}.\n`)
    say(options, 'See what it did:')
    say(options, `  git -C ${clone} diff ${base?.slice(0, 12) ?? 'main'}..${branch}`)
    if (test !== null) say(options, `  cd ${clone} && git switch ${branch} && ${test}`)
  } else if (checkout) say(options, `It changed nothing in ${clone}.`)
  say(options, '\nGo on:')
  if (model.isScripted)
    say(options, '  export ANTHROPIC_API_KEY=…      (or OPENAI_API_KEY, or OLLAMA_HOST: a real model)')
  say(options, '  npm start                       keeps control plane and worker running')
  say(options, '  npx oz agent run-cloud --prompt "…" --repo https://… --watch')
  say(options, '  npm run demo -- --task NAME     another task: refactor, server, question')
  say(options, '  npm run demo -- --backend docker   the same in a container')
  say(options, '  npm run demo -- --repo PATH --prompt "…"   the same on your own repository\n')
}

/** For people. With `--output-format json` stdout is for the result alone. */
function say({ isJson }: DemoOptions, text: string): void {
  if (isJson) console.error(text)
  else console.log(text)
}

function interrupted(signal: AbortSignal): Promise<number> {
  return new Promise((resolve) => {
    const onAbort = () => {
      console.error('\nStopping …')
      resolve(130)
    }
    if (signal.aborted) onAbort()
    else signal.addEventListener('abort', onAbort, { once: true })
  })
}

/** The logs go with the folder, and a failure is hard to understand without their end. */
async function printLogs(folder: DemoFolder): Promise<void> {
  for (const name of ['server.log', 'worker.log']) {
    const text = await readFile(join(folder.private, name), 'utf8').catch(() => '')
    if (text === '') continue
    console.error(`\nThe end of ${name}:\n${text.trimEnd().split('\n').slice(-15).join('\n')}`)
  }
}
