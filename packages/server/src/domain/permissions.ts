import { AppError } from '@openoz/protocol'
import type { Role } from '../store/people.ts'
import type { RunRecord } from '../store/runs.ts'
import type { Actor } from './actors.ts'

/**
 * The one permission table: which action takes which kind of actor. Every route names its action, and a test walks all routes × actors. Which
 * objects an actor sees (its team's runs, its own personal ones) is decided where the object is read, so that what may not be seen is "not found".
 */
interface Permission {
  /** Least role of a person; null: people may not. */
  user: Role | null
  team: boolean
  worker: boolean
  /** A live execution's token, for its own run only. */
  execution: boolean
  /** For messages: "{actor} may not …". */
  words: string
}

const people = { worker: false, execution: false } as const

export const permissions = {
  'run.create': { ...people, user: 'member', team: true, words: 'start runs' },
  'run.read': { ...people, user: 'member', team: true, words: 'read runs' },
  'run.cancel': { ...people, user: 'member', team: true, words: 'cancel runs' },
  'run.follow-up': { ...people, user: 'member', team: true, words: 'send messages to runs' },
  'conversation.change': { ...people, user: 'member', team: true, words: 'copy and rename conversations' },
  'environment.read': { ...people, user: 'member', team: true, words: 'read environments' },
  'environment.write': { ...people, user: 'member', team: true, words: 'change environments' },
  'artifact.read': { ...people, user: 'member', team: true, words: 'read artifacts' },
  'artifact.create': { ...people, user: 'member', team: true, words: 'add artifacts' },
  'message.send': { user: 'member', team: true, worker: false, execution: true, words: 'send messages between runs' },
  'message.read': { user: 'member', team: true, worker: false, execution: true, words: 'read messages between runs' },
  'event.read': { user: 'member', team: true, worker: false, execution: true, words: 'read the events of runs' },
  'event.report': { user: 'member', team: true, worker: false, execution: true, words: 'report events of runs' },
  'model.read': { ...people, user: 'member', team: true, words: 'list models' },
  'worker.read': { ...people, user: 'member', team: true, words: 'list workers' },
  // A team's key is what automation has that takes machines out of service.
  'worker.drain': { ...people, user: 'admin', team: true, words: 'drain workers' },
  // What a joining machine gets can connect as a worker, as the team's key itself can.
  'worker.join-token': { ...people, user: 'admin', team: true, words: 'make join tokens' },
  'worker.leave': { user: null, team: false, worker: true, execution: false, words: 'end its own worker key' },
  'worker.connect': { user: 'member', team: true, worker: true, execution: false, words: 'connect as a worker' },
  'api-key.read': { ...people, user: 'member', team: true, words: 'list API keys' },
  'api-key.create': { ...people, user: 'member', team: false, words: 'make API keys' },
  'api-key.expire': { ...people, user: 'member', team: false, words: 'expire API keys' },
  'self.read': { user: 'member', team: true, worker: true, execution: true, words: 'ask who it is' },
  'agent.channel': { user: null, team: false, worker: false, execution: true, words: 'use the agent channel' },
  'model.call': { user: null, team: false, worker: false, execution: true, words: 'call models' },
} as const satisfies Record<string, Permission>

export type Action = keyof typeof permissions

const rank: Record<Role, number> = { member: 1, admin: 2, owner: 3 }

export function may(actor: Actor, action: Action): boolean {
  const permission: Permission = permissions[action]
  switch (actor.kind) {
    case 'user':
      return permission.user !== null && rank[actor.role] >= rank[permission.user]
    case 'team':
      return permission.team
    case 'worker':
      return permission.worker
    case 'execution':
      return permission.execution
    default:
      return actor satisfies never
  }
}

/** Throws `not_authorized` when the actor may not. */
export function assertMay(actor: Actor, action: Action): void {
  if (may(actor, action)) return
  throw new AppError('not_authorized', { actor: actorInWords(actor), action: permissions[action].words })
}

/** A client may name the team that it means; a key acts for its own alone. */
export function assertOfTeam(actor: Actor, teamUid: string | undefined): void {
  if (!teamUid || teamUid.toLowerCase() === actor.teamId) return
  throw new AppError('not_authorized', { actor: actorInWords(actor), action: `act for team ${teamUid.slice(0, 100)}` })
}

function actorInWords(actor: Actor): string {
  switch (actor.kind) {
    case 'user':
      return `The ${actor.role}’s key ${actor.keyName}`
    case 'team':
      return `The team key ${actor.keyName}`
    case 'worker':
      return `The worker key ${actor.keyName}`
    case 'execution':
      return `The token of execution ${actor.executionId}`
    default:
      return actor satisfies never
  }
}

/** A team's runs are seen by its people, a personal one by its creator; an execution sees its own. */
export function maySee(run: RunRecord, actor: Actor): boolean {
  if (actor.kind === 'execution') return run.id === actor.runId
  return run.teamId === actor.teamId && (run.scope === 'team' || run.createdByUser === actor.userId)
}

/** Admins and owners see and end the whole team's keys, others their own. */
export function seesAllKeys(actor: Actor): boolean {
  return actor.kind === 'team' || (actor.kind === 'user' && rank[actor.role] >= rank.admin)
}

/** A team's key has no person, so what it makes is the team's; people choose. */
export function scopeFor(actor: Actor, team: boolean | undefined): 'team' | 'user' {
  return actor.kind === 'team' || team !== false ? 'team' : 'user'
}
