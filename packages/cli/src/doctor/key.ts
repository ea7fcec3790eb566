import { type ApiClient, ApiError, AppError, type ErrorCode, messageOf, type Whoami } from '@openoz/protocol'
import type { ServerLogin } from '../connection.ts'
import type { Finding } from './finding.ts'

const check = 'key'

const none = 'oz login, or set OZ_API_KEY.'
const makeOne = 'Make a new one with `oz api-key create NAME`, and give it as OZ_API_KEY or with `oz login --stdin`.'

/** What to do about each way in which a key is none. */
const remedies: Partial<Record<ErrorCode, string>> = {
  api_key_missing: none,
  api_key_unknown: `Check for a missing character, and that it is a key of this control plane. ${makeOne}`,
  api_key_expired: makeOne,
  api_key_revoked: makeOne,
  execution_token_ended: 'That is the token of a run’s agent, and its run is over: use a key of your own.',
  not_authorized: 'Its owner is in no team any more; let an admin make a key.',
}

/** Whose key it is and what it may do; a variable that says nothing, or something else, is named beside it. */
export async function checkKey(client: ApiClient, login: ServerLogin, env: NodeJS.ProcessEnv): Promise<Finding[]> {
  const variables = checkVariables(env)
  if (login.apiKey === undefined) {
    const text = 'no API key and no saved login'
    return [...variables, { check, level: 'fail', text, remedy: none }]
  }
  const from = `from ${login.from.apiKey}`
  try {
    const me = await client.whoami()
    return [...variables, scopeFinding(me, from)]
  } catch (error) {
    const code = error instanceof ApiError ? error.problem.code : error instanceof AppError ? error.code : undefined
    const remedy = remedies[code as ErrorCode] ?? 'Look at the control plane’s log.'
    return [...variables, { check, level: 'fail', text: `${from}: ${messageOf(error)}`, remedy }]
  }
}

function scopeFinding(me: Whoami, from: string): Finding {
  const text = `${me.display_name}, ${me.key_scope} scope (${from})`
  if (me.key_scope === 'worker') {
    const remedy = 'For this command line use a key of yours or of the team: `oz api-key create NAME --scope team`.'
    return { check, level: 'fail', text: `${text}: it lets a worker connect, and does nothing else`, remedy }
  }
  if (me.key_scope === 'execution') {
    const remedy = 'Outside of its run use a key of your own.'
    return { check, level: 'fail', text: `${text}: it is the token of a run’s agent`, remedy }
  }
  return { check, level: 'ok', text }
}

function checkVariables(env: NodeJS.ProcessEnv): Finding[] {
  const blank = ['OZ_API_KEY', 'WARP_API_KEY'].filter((name) => env[name] !== undefined && env[name]?.trim() === '')
  if (blank.length > 0) {
    const text = `${blank.join(' and ')} ${blank.length === 1 ? 'is' : 'are'} set, but empty`
    return [{ check, level: 'warn', text, remedy: 'A pipeline does so without its secret. Set it, or unset it.' }]
  }
  if (env.OZ_API_KEY && env.WARP_API_KEY && env.OZ_API_KEY.trim() !== env.WARP_API_KEY.trim()) {
    const text = 'OZ_API_KEY and WARP_API_KEY are two different keys; OZ_API_KEY counts'
    return [{ check, level: 'warn', text, remedy: 'Unset one of them.' }]
  }
  return []
}
