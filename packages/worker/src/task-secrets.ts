import type { TaskAssignment } from '@openoz/protocol'

/** Values that must not be quoted from a log: the token, and what is named like a secret. */
export function secretsOf({ execution_token: token, env_vars = {} }: TaskAssignment, apiKey: string): string[] {
  const named = Object.entries(env_vars).filter(([name]) => /KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL/i.test(name))
  return [apiKey, ...(token === undefined ? [] : [token]), ...named.map(([, value]) => value)]
}
