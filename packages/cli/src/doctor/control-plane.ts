import { type ApiClient, type ListModelsResponse, messageOf, type Worker } from '@openoz/protocol'
import { findLogin, openConnection, type ServerLogin } from '../connection.ts'
import type { GlobalOptions } from '../global-options.ts'
import type { Finding } from './finding.ts'
import { checkKey } from './key.ts'
import { checkAddress, checkClock, checkDatabase, checkWebSocket } from './network.ts'

/** The way to it, its database, the key, models and workers; what depends on a failed one is left out. */
export async function checkControlPlane(options: GlobalOptions, env: NodeJS.ProcessEnv): Promise<Finding[]> {
  let login: ServerLogin
  try {
    login = await findLogin(options, env)
  } catch (error) {
    return [{ check: 'login', level: 'fail', text: messageOf(error), remedy: 'oz login writes it anew.' }]
  }
  try {
    await using connection = openConnection({ serverUrl: login.serverUrl, apiKey: login.apiKey ?? '', env })
    const { client, dialer } = connection
    const { finding: address, date } = await checkAddress(dialer, login, env)
    if (address.level === 'fail') return [address]
    const reached = [address, ...checkClock(date, Date.now()), await checkDatabase(dialer)]
    if (reached.at(-1)?.level === 'fail') return reached
    const key = await checkKey(client, login, env)
    // It shows the way alone: the key may be of any kind.
    const webSocket = await checkWebSocket(dialer, login.apiKey ?? '')
    const found = [...reached, ...key, webSocket]
    if (key.some(({ level }) => level === 'fail')) return found
    return [...found, ...(await Promise.all([checkModels(client), checkWorkers(client)]))]
  } catch (error) {
    const remedy = 'docs/configuration.md says how addresses and files of authorities are named.'
    return [{ check: 'address', level: 'fail', text: messageOf(error), remedy }]
  }
}

async function checkModels(client: ApiClient): Promise<Finding> {
  const check = 'models'
  let answer: ListModelsResponse
  try {
    answer = await client.models.list()
  } catch (error) {
    return { check, level: 'fail', text: messageOf(error), remedy: 'Look at the control plane’s log.' }
  }
  const { models, default_model_id, problems } = answer
  const trouble = problems.map(({ provider, problem }) => `${provider}: ${problem}`).join('; ')
  if (models.length === 0) {
    const remedy = 'Start the control plane with ANTHROPIC_API_KEY, OPENAI_API_KEY or OLLAMA_HOST set.'
    return { check, level: 'fail', text: trouble || 'no model provider', remedy }
  }
  const text = `${models.length} usable, default ${default_model_id}`
  if (trouble === '') return { check, level: 'ok', text }
  return { check, level: 'warn', text, remedy: trouble }
}

async function checkWorkers(client: ApiClient): Promise<Finding> {
  const check = 'workers'
  let workers: Worker[]
  try {
    workers = (await client.workers.list()).workers
  } catch (error) {
    return { check, level: 'fail', text: messageOf(error), remedy: 'Look at the control plane’s log.' }
  }
  const names = [...new Set(workers.map((worker) => `${worker.worker_id} (${worker.backend})`))].join(', ')
  if (workers.length > 0 && workers.every((worker) => worker.draining)) {
    const remedy = 'They end what they have and take nothing new: start another, or wait for their restart.'
    return { check, level: 'warn', text: `${names}: all of them are being drained`, remedy }
  }
  if (workers.length > 0) return { check, level: 'ok', text: names }
  const remedy = 'Start one: oz up, or oz-agent-worker --worker-id NAME --backend direct.'
  return { check, level: 'fail', text: 'none is connected, so runs stay queued', remedy }
}
