import { type ApiClient, AppError, type ListModelsResponse, type Worker } from '@openoz/protocol'
import { findLogin, openConnection, type ServerLogin } from '../connection.ts'
import type { GlobalOptions } from '../global-options.ts'
import type { Finding } from './finding.ts'

/** Address, key, models and workers; what depends on a failed one is left out. */
export async function checkControlPlane(options: GlobalOptions, env: NodeJS.ProcessEnv): Promise<Finding[]> {
  let login: ServerLogin
  try {
    login = await findLogin(options, env)
  } catch (error) {
    return [{ check: 'login', level: 'fail', text: messageOf(error) }]
  }
  try {
    await using connection = openConnection({ serverUrl: login.serverUrl, apiKey: login.apiKey ?? '', env })
    const reached = await checkAddress(connection.dialer.fetch, login)
    if (reached.level === 'fail') return [reached]
    const key = await checkKey(connection.client, login)
    if (key.level === 'fail') return [reached, key]
    return [reached, key, ...(await Promise.all([checkModels(connection.client), checkWorkers(connection.client)]))]
  } catch (error) {
    return [{ check: 'address', level: 'fail', text: messageOf(error) }]
  }
}

async function checkAddress(fetch: (path: string) => Promise<Response>, login: ServerLogin): Promise<Finding> {
  const check = 'address'
  const where = `${login.serverUrl} (from ${login.from.serverUrl})`
  try {
    const response = await fetch('/readyz')
    await response.body?.cancel()
    if (response.ok) return { check, level: 'ok', text: `${where} is ready` }
    return { check, level: 'fail', text: `${where} answers ${response.status}`, remedy: 'Look at the server’s log.' }
  } catch (error) {
    return { check, level: 'fail', text: `${where}: ${messageOf(error)}` }
  }
}

async function checkKey(client: ApiClient, login: ServerLogin): Promise<Finding> {
  const check = 'key'
  if (login.apiKey === undefined) {
    return { check, level: 'fail', text: 'no API key and no saved login', remedy: 'oz login, or set OZ_API_KEY.' }
  }
  try {
    const me = await client.whoami()
    return { check, level: 'ok', text: `${me.display_name}, ${me.key_scope} scope (from ${login.from.apiKey})` }
  } catch (error) {
    return { check, level: 'fail', text: `from ${login.from.apiKey}: ${messageOf(error)}` }
  }
}

async function checkModels(client: ApiClient): Promise<Finding> {
  const check = 'models'
  let answer: ListModelsResponse
  try {
    answer = await client.models.list()
  } catch (error) {
    return { check, level: 'fail', text: messageOf(error) }
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
    return { check, level: 'fail', text: messageOf(error) }
  }
  const ids = [...new Set(workers.map((worker) => worker.worker_id))]
  if (ids.length > 0) return { check, level: 'ok', text: ids.join(', ') }
  const remedy = 'Start one: oz up, or oz-agent-worker --worker-id NAME --backend direct.'
  return { check, level: 'fail', text: 'none is connected, so runs stay queued', remedy }
}

function messageOf(error: unknown): string {
  if (error instanceof AppError || error instanceof Error) return error.message
  return String(error)
}
