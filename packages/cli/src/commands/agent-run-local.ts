import { stat } from 'node:fs/promises'
import { constants, hostname } from 'node:os'
import { resolve } from 'node:path'
import { type RunAgentResult, runAgent } from '@openoz/agent'
import { ApiError, AppError, isUuid, type StartLocalRunRequest, type StartLocalRunResponse } from '@openoz/protocol'
import { createAgentStream } from '../agent-stream/create-agent-stream.ts'
import type { CommandContext } from '../command-context.ts'
import { type Connection, openConnection, requireLogin } from '../connection.ts'
import { drainSpools, type LocalSpool, localSpool } from '../local-spool.ts'
import { createLogger } from '../log.ts'
import { sendOnce } from '../send-once.ts'
import { onStopSignals, type StopSignals } from '../stop-signals.ts'
import { type LocalRunOptions, readLocalRunWish } from './local-run-wish.ts'

/**
 * `oz agent run --prompt …`: a run on this machine, in this folder, by this process. It is a run like every other one (listed, watched, steered,
 * cancelled from anywhere) except that no worker is asked: whoever started the process answers for it.
 *
 *   options read → run created on the control plane → the agent, until its last turn has ended → what it said delivered → exit
 *
 * Exit code 0: it succeeded; 1: it ended otherwise, or could not begin; 2: wrong use; 130: interrupted (143 and 129 for SIGTERM and SIGHUP).
 * The first signal ends the turn as CANCELLED, the second one ends everything at once.
 */
export async function agentRunLocal(
  { options: globals, output, env }: CommandContext,
  { options, given }: { options: LocalRunOptions; given: string[] },
): Promise<number> {
  const wish = await readLocalRunWish(options, { given, env })
  const folder = resolve(options.cwd ?? process.cwd())
  await requireFolder(folder)
  const login = await requireLogin(globals, env)
  const log = createLogger({ name: 'agent', level: globals.debug ? 'debug' : 'warn', env, isForPeople: !output.isJson })
  for (const text of wish.notes) output.note(text)

  goOnWithoutReader()
  using stop = onStopSignals()
  await using connection = openConnection({ ...login, env, signal: stop.first, timeoutMs: startTimeoutMs })
  const parentRunId = runIdOf(env.OZ_RUN_ID)
  const request = { ...wish.request, host: hostname().slice(0, 255), saves_workspace: wish.savesWorkspace }
  let started: StartLocalRunResponse
  try {
    started = await startRun(connection, request, parentRunId)
  } catch (error) {
    if (stop.first.aborted) return interruptedCode(stop)
    throw error
  }

  const stream = createAgentStream(output, folder)
  const { run_id: runId, conversation_id: conversationId, run_url: runUrl } = started
  stream.started({ runId, runUrl, conversationId, isShared: (wish.request.share ?? []).length > 0 })
  // From here on nothing that is started may find our keys.
  forgetKeys(env)
  const spool = await openLocalSpool(env, { started, login })
  const isDone = new AbortController()
  const draining = drainSpools(env, { except: spool.folder, log, signal: AbortSignal.any([stop.first, isDone.signal]) })
  const result = await runAgent({
    serverUrl: login.serverUrl,
    executionToken: started.execution_token,
    spoolDir: spool.folder,
    workingDirectory: folder,
    log,
    signal: stop.first,
    now: stop.second,
    env: { ...env, ...ownProgram() },
    helloPatienceMs: startTimeoutMs,
    idle: wish.idle,
    savesWorkspace: wish.savesWorkspace,
    secrets: [login.apiKey, login.apiKey.replace(/^wk-/, '')],
    onEvent: (event) => stream.event(event),
  })
  const isInterrupted = stop.first.aborted
  const isCancelled = result.error instanceof ApiError && result.error.problem.code === 'run_cancelled_before_start'
  if (result.local) stream.finished({ runId, conversationId, ...endOf(result, isInterrupted) })
  else if (isCancelled) stream.finished({ runId, conversationId, state: 'CANCELLED', message: 'Cancelled by user.' })
  else await cancelUnbegun(login, { env, runId })
  if (result.local?.isDelivered === false) {
    await spool.keep()
    output.note(
      `Not everything could be delivered; the next oz agent run on this machine tries again (${spool.folder}).`,
    )
  } else await spool.remove()
  const exitCode = isInterrupted ? interruptedCode(stop) : result.exitCode
  // Whoever asks twice does not wait for what is still open.
  if (stop.second.aborted) process.exit(exitCode)
  const patience = setTimeout(() => isDone.abort(), drainPatienceMs)
  await draining
  clearTimeout(patience)
  if (!result.local && !isInterrupted) throw result.error ?? new Error('the agent could not begin')
  return exitCode
}

/** A run that has no place on this machine does not begin. */
async function openLocalSpool(
  env: NodeJS.ProcessEnv,
  { started, login }: { started: StartLocalRunResponse; login: { serverUrl: string; apiKey: string } },
): Promise<LocalSpool> {
  const { execution_id: executionId, execution_token: token } = started
  try {
    return await localSpool(env, { executionId, serverUrl: login.serverUrl, token })
  } catch (error) {
    await cancelUnbegun(login, { env, runId: started.run_id })
    throw error
  }
}

/** A person waits for the first word. */
const startTimeoutMs = 8_000
/** What an earlier run left is not worth a longer wait. */
const drainPatienceMs = 2_000

/** `oz agent run | head -1` has seen enough, but the agent is at work: it must not be left alone, with tools that nobody ends. */
function goOnWithoutReader(): void {
  process.stdout.removeAllListeners('error').on('error', () => {})
}

async function requireFolder(folder: string): Promise<void> {
  const found = await stat(folder).catch(() => undefined)
  if (!found?.isDirectory()) throw new AppError('working_directory_invalid', { directory: folder })
}

/** Inside of another run's tools, the new run is that one's child; a run that this control plane does not know is nobody's parent. */
async function startRun(
  { client }: Connection,
  request: StartLocalRunRequest,
  parentRunId: string | undefined,
): Promise<StartLocalRunResponse> {
  const send = (whole: StartLocalRunRequest) => sendOnce((once) => client.runs.startLocal(whole, once))
  if (parentRunId === undefined) return send(request)
  try {
    return await send({ ...request, parent_run_id: parentRunId })
  } catch (error) {
    if (!(error instanceof ApiError) || error.problem.code !== 'run_not_found') throw error
    return send(request)
  }
}

function runIdOf(text: string | undefined): string | undefined {
  return text !== undefined && isUuid(text) ? text : undefined
}

function forgetKeys(env: NodeJS.ProcessEnv): void {
  for (const name of ['OZ_API_KEY', 'WARP_API_KEY', 'OZ_EXECUTION_TOKEN_FILE', 'OZ_SPOOL_DIR']) delete env[name]
}

/** Tools can find this program. */
function ownProgram(): NodeJS.ProcessEnv {
  const [, program] = process.argv
  return program === undefined ? {} : { OZ_CLI: program, WARP_CLI: program }
}

function endOf({ local, error }: RunAgentResult, isInterrupted: boolean): { state: string; message: string } {
  if (local?.last) return { state: local.last.outcome, message: local.last.message }
  if (isInterrupted) return { state: 'CANCELLED', message: new AppError('run_interrupted').message }
  const problem = error instanceof Error ? `: ${error.message}` : ''
  return {
    state: 'ERROR',
    message: `The agent ended without an outcome${problem}. oz run get shows what became of the run.`,
  }
}

function interruptedCode({ signalName }: StopSignals): number {
  return 128 + constants.signals[signalName ?? 'SIGINT']
}

/** An agent that never said hello says no outcome either. */
async function cancelUnbegun(
  login: { serverUrl: string; apiKey: string },
  { env, runId }: { env: NodeJS.ProcessEnv; runId: string },
): Promise<void> {
  await using connection = openConnection({ ...login, env, timeoutMs: 1_000 })
  await connection.client.runs.cancel(runId).catch(() => {})
}
