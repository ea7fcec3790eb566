import { restoreImageVariables } from '@openoz/machine'
import { readWorkerConfig, runWorker, type WorkerFlagValues } from '@openoz/worker'
import { isSameServer } from './connection.ts'
import { stayMessage } from './join/background-worker.ts'
import { createLogger } from './log.ts'
import { reportError } from './output.ts'
import { readSavedLogin, type SavedLogin } from './saved-login.ts'
import { leaveSignal } from './service/service-unit.ts'
import { onStopSignals } from './stop-signals.ts'
import { createWorkerCommand, messageOf } from './worker-command.ts'

/** `oz-agent-worker`. */
export async function main(args: string[]): Promise<void> {
  const { env } = process
  restoreImageVariables(env)
  const say = (line: string) => {
    // Who reads along may go before the end, and what is half done is done all the same.
    if (process.stdout.listenerCount('error') === 0) process.stdout.on('error', () => {})
    process.stdout.write(`${line}\n`)
  }
  const command = createWorkerCommand({
    work: (flags) => work(flags, env),
    async install({ user, print, ...flags }) {
      const { installService } = await import('./service/worker-service.ts')
      await installService({ flags, config: await readConfig(flags, env) }, { flags: { user, print }, env, say })
    },
    async uninstall(flags) {
      const { uninstallService } = await import('./service/worker-service.ts')
      await uninstallService({ flags, env, say })
    },
    async join(flags) {
      const { joinMachine } = await import('./join/set-up.ts')
      await joinMachine({ flags, env, say })
    },
    async setUp(flags) {
      const { setUpMachine } = await import('./join/set-up.ts')
      await setUpMachine({ flags, env, say })
    },
    async leave({ stop = false }) {
      const { leaveMachine } = await import('./join/leave-machine.ts')
      await leaveMachine({ env, say, stopOnly: stop })
    },
  })
  try {
    await command.parseAsync(args, { from: 'user' })
  } catch (error) {
    process.exitCode = reportError(error, { format: 'pretty', debug: false, stderr: process.stderr, env })
  }
  // The channel to `oz up` would keep this process alive.
  if (process.connected) process.disconnect()
}

async function work(flags: WorkerFlagValues, env: NodeJS.ProcessEnv): Promise<void> {
  const config = await readConfig(flags, env)
  const log = createLogger({ name: 'worker', level: config.logLevel, env })
  using stop = onStopSignals()
  const leave = new AbortController()
  process.once(leaveSignal, () => leave.abort())
  const exitCode = await runWorker({
    ...config,
    log,
    signal: AbortSignal.any([stop.first, parentGone()]),
    stopNow: stop.second,
    leave: leave.signal,
    onEvent(event) {
      const message = messageOf(event)
      if (message && process.connected) process.send?.(message)
    },
  })
  process.exitCode = exitCode
}

async function readConfig(flags: WorkerFlagValues, env: NodeJS.ProcessEnv) {
  return readWorkerConfig({ flags, env, login: loginFor(flags, env, await readSavedLogin(env)) })
}

/** The saved key belongs to the saved address: nobody else is shown it. */
function loginFor(flags: WorkerFlagValues, env: NodeJS.ProcessEnv, saved: SavedLogin | undefined) {
  const named = flags.serverUrl || flags.serverRootUrl || env.OZ_SERVER_URL || env.WARP_SERVER_ROOT_URL
  if (!saved || (named && !isSameServer(named, saved.server_url))) return undefined
  return { serverUrl: saved.server_url, apiKey: saved.api_key }
}

/**
 * A worker that `oz up` started stops with it, however that ended; it is told what that means for its tasks (`--drain stop`). Aborted never when nobody
 * holds a channel to us, or whoever does has said that the worker stays.
 */
function parentGone(): AbortSignal {
  const gone = new AbortController()
  const onDisconnect = () => gone.abort(new Error('the program that started this worker has ended'))
  // `send` is there when there was a channel: it may have ended while our modules were loaded.
  if (process.send && !process.connected) onDisconnect()
  else process.once('disconnect', onDisconnect)
  // Who made this machine a worker has only waited for it to connect.
  if (process.connected)
    process.on('message', (message) => {
      if (message === stayMessage) process.off('disconnect', onDisconnect)
    })
  return gone.signal
}
