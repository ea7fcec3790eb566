import { type Dialer, type DialFailureReason, dialFailureReason, proxyFor } from '@openoz/machine'
import { ApiError, AppError, messageOf } from '@openoz/protocol'
import {
  workerChannelPath,
  workerProtocolHeader,
  workerProtocolVersion,
  workerSocketPath,
} from '@openoz/protocol/schemas'
import type { ServerLogin } from '../connection.ts'
import type { Finding } from './finding.ts'

/** What to do about each way in which nothing answers. */
const remedies: Record<DialFailureReason, string> = {
  dns: 'Check the address (--server-url), and which DNS server this machine asks.',
  refused: 'Is the control plane running, and on that port? `oz up` or `oz server` starts one here.',
  timeout: 'A firewall may drop what is sent there. Check the address, or name a proxy in HTTPS_PROXY.',
  network: 'This machine has no way there: check its routes, or name a proxy in HTTPS_PROXY.',
  tls: 'Name the authority’s file in OZ_CA_FILE, or check that the address is meant to be https.',
  proxy: 'Check HTTPS_PROXY and HTTP_PROXY; NO_PROXY names what is to be reached without a proxy.',
  socket: 'Check that the control plane listens on this socket, and that you may open it.',
  reset: 'Something on the way ended the connection: a proxy, a firewall, or the control plane itself.',
  redirect: 'Use the address that it names.',
  protocol: 'Something else than a control plane listens there. Check the address and its port.',
  other: 'Try `curl -v` with the address, and look at the control plane’s log.',
}

/** The name, the way and the certificate: whether anything answers. `date` is the server's clock. */
export async function checkAddress(
  dialer: Dialer,
  login: ServerLogin,
  env: NodeJS.ProcessEnv,
): Promise<{ finding: Finding; date?: string | null }> {
  const check = 'address'
  const where = `${login.serverUrl} (from ${login.from.serverUrl})${throughProxy(dialer, env)}`
  try {
    const response = await dialer.fetch('/healthz', { signal: AbortSignal.timeout(10_000) })
    const { status, headers } = response
    await response.body?.cancel()
    const date = headers.get('date')
    if (status === 200) return { finding: { check, level: 'ok', text: `${where} answers` }, date }
    const text = `${where} answers ${status}`
    return { finding: { check, level: 'fail', text, remedy: remedies.protocol } }
  } catch (error) {
    const remedy = remedies[dialFailureReason(error) ?? 'other']
    return { finding: { check, level: 'fail', text: `${where}: ${messageOf(error)}`, remedy } }
  }
}

/** Without its password. */
function throughProxy({ serverUrl }: Dialer, env: NodeJS.ProcessEnv): string {
  const proxy = URL.canParse(serverUrl) ? proxyFor(new URL(serverUrl), env) : undefined
  return proxy === undefined ? '' : ` through the proxy ${proxy.host}`
}

const slowClockMs = 30_000
const wrongClockMs = 5 * 60_000

/** Keys, links and certificates have times, and events are shown with the times of this machine. */
export function checkClock(date: string | null | undefined, now: number): Finding[] {
  const serverMs = Date.parse(date ?? '')
  if (Number.isNaN(serverMs)) return []
  const check = 'clock'
  const offMs = now - serverMs
  const seconds = Math.round(Math.abs(offMs) / 1000)
  if (Math.abs(offMs) <= slowClockMs) return [{ check, level: 'ok', text: 'agrees with the control plane’s' }]
  const text = `${seconds} s ${offMs > 0 ? 'ahead of' : 'behind'} the control plane’s`
  const level = Math.abs(offMs) > wrongClockMs ? 'fail' : 'warn'
  return [{ check, level, text, remedy: 'Let both machines set their clocks by NTP (`timedatectl set-ntp true`).' }]
}

/** Whether the control plane can do anything: it is ready once its database answers. */
export async function checkDatabase(dialer: Dialer): Promise<Finding> {
  const check = 'database'
  try {
    const response = await dialer.fetch('/readyz', { signal: AbortSignal.timeout(10_000) })
    const { status, code, detail } = (await response.json()) as { status?: string; code?: string; detail?: string }
    if (response.ok) return { check, level: 'ok', text: 'the control plane reaches its database' }
    if (status === 'stopping')
      return { check, level: 'fail', text: 'the control plane is stopping', remedy: 'Start it again.' }
    if (detail !== undefined && code?.startsWith('database_')) return { check, level: 'fail', text: detail }
    const remedy = 'Look at the control plane’s log; an own database is named in DATABASE_URL.'
    return { check, level: 'fail', text: 'the control plane does not reach its database, or is still starting', remedy }
  } catch (error) {
    return { check, level: 'fail', text: messageOf(error), remedy: 'Look at the control plane’s log.' }
  }
}

/** No worker may have it, so nothing is connected; but who refuses it has seen the upgrade, and the key. */
const refusedWorkerId = 'warp-doctor'

/** Workers want a WebSocket, which some proxies do not pass, and are content with a stream, which most do. */
export async function checkWebSocket(dialer: Dialer, apiKey: string): Promise<Finding> {
  const check = 'websocket'
  const problem = await webSocketProblem(dialer, apiKey)
  if (problem === undefined) return { check, level: 'ok', text: 'passes' }
  const channelProblem = await channelProblemOf(dialer, apiKey)
  const blocked = new AppError('websocket_blocked', { url: dialer.serverUrl, problem, channelProblem })
  if (channelProblem === undefined)
    return {
      check,
      level: 'warn',
      text: `refused on the way (${problem}); workers use the plain HTTP channel here, which passes`,
      remedy: 'Let the proxy pass upgrades (`Upgrade: websocket`) if you can: an offer is there a little sooner.',
    }
  return {
    check,
    level: 'fail',
    text: `refused on the way (${problem}), and the plain HTTP channel does not pass (${channelProblem}), so no worker connects from here [${blocked.code}]`,
    remedy: blocked.spec.remedy,
  }
}

async function webSocketProblem(dialer: Dialer, apiKey: string): Promise<string | undefined> {
  const signal = AbortSignal.timeout(10_000)
  const headers = { authorization: `Bearer ${apiKey}` }
  try {
    const socket = await dialer.openWebSocket(`${workerSocketPath}?worker_id=${refusedWorkerId}`, { headers, signal })
    socket.terminate()
    return undefined
  } catch (error) {
    if (!(error instanceof ApiError)) return problemOf(error)
    // Asked without an upgrade, because that was lost on the way, there is no such route.
    return error.problem.code === 'route_not_found' ? 'the upgrade was taken out on the way' : undefined
  }
}

/** Without a hello it is nobody's worker: nothing is offered to it, and no list shows it. */
async function channelProblemOf(dialer: Dialer, apiKey: string): Promise<string | undefined> {
  const stop = new AbortController()
  const timer = setTimeout(() => stop.abort(new Error('its first event did not come within 10 s')), 10_000)
  const headers = { authorization: `Bearer ${apiKey}`, [workerProtocolHeader]: String(workerProtocolVersion) }
  try {
    const address = `${workerChannelPath}?worker_id=oz-doctor`
    for await (const { event } of dialer.eventStream(address, { headers, signal: stop.signal }))
      return event === 'open' ? undefined : `it began with ${event}`
    return 'it ended at once'
  } catch (error) {
    // A key that may be one worker only: the control plane itself said so, which is as far as it can be tried.
    if (error instanceof ApiError && error.problem.code !== 'route_not_found') return undefined
    return problemOf(error)
  } finally {
    clearTimeout(timer)
  }
}

function problemOf(error: unknown): string {
  if (!(error instanceof AppError)) return messageOf(error)
  const { status, problem } = error.details
  return String(problem ?? `it answered ${status}`)
}
