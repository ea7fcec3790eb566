import type { Run, Scope } from '@openoz/protocol'

/** A person, or the team's key that stood in for one. */
export interface Person {
  userId: string | null
  keyId: string | null
  teamId: string
  name: string | null
  email: string | null
}

/** As the API shows who made something. */
export function toPersonItem({ userId, keyId, teamId, name, email }: Person): Run['creator'] {
  return userId === null
    ? { type: 'service_account', uid: keyId ?? teamId, display_name: name ?? 'team key' }
    : { type: 'user', uid: userId, display_name: name ?? '', ...(email === null ? {} : { email }) }
}

/** As the API shows whose something is. */
export function toScopeItem(scope: 'team' | 'user', { teamId, userId }: Pick<Person, 'teamId' | 'userId'>): Scope {
  return scope === 'team' ? { type: 'Team', uid: teamId } : { type: 'User', uid: userId ?? teamId }
}
