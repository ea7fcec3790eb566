import { createHash } from 'node:crypto'
import type pg from 'pg'

/**
 * Names for statements. A connection keeps a named one, parsed and, once it has been executed some times, planned: without a name both are done at
 * every execution, which was half of what the database computed.
 *
 * A name is the hash of the text, so it means the same text to every server of an installation, whoever made it on a connection that a pooler
 * hands around. Names are never given back. They are therefore few: texts are constant, the one that varies says so (`planned each time`), and
 * beyond `maxNames` nothing is named any more.
 *
 * Two things go wrong with names and not without. Both fail before anything is done, so whoever was told tries again:
 * - A migration changed a table under `select *` (a newer server began). The plan that a connection keeps does not fit then, ever again; so all
 *   statements get names of another generation, once per migration.
 * - A pooler gives each transaction another connection and knows nothing of names. Then nothing is named any more.
 */
export interface StatementNames {
  nameOf(text: string): string | undefined
  /** The statement of this name failed so. Where that was because of its name, the same gets another one, or none, the next time. */
  noteFailure(name: string, error: unknown): void
}

/** Far above the statements that there are. */
const maxNames = 500

export function createStatementNames(onGivenUp: (error: Error) => void = () => {}, max = maxNames): StatementNames {
  const hashes = new Map<string, string>()
  let generation = 0
  let isGivenUp = false
  const prefix = () => `oz${generation}_`

  return {
    nameOf(text) {
      if (isGivenUp) return undefined
      let hash = hashes.get(text)
      if (hash === undefined) {
        if (hashes.size >= max) return undefined
        hash = createHash('sha256').update(text).digest('hex').slice(0, 32)
        hashes.set(text, hash)
      }
      return prefix() + hash
    },
    noteFailure(name, error) {
      // Of the connections that fail at the same time only the first one asks for another generation.
      if (isPlanOutdated(error) && name.startsWith(prefix())) generation++
      if (!isNameMisplaced(error) || isGivenUp) return
      isGivenUp = true
      onGivenUp(error as Error)
    },
  }
}

/** Nothing was done, and the same may succeed now: its name will be another one. */
export function isNameFailure(error: unknown): boolean {
  return isPlanOutdated(error) || isNameMisplaced(error)
}

/** By the place in PostgreSQL's source: the code is that of many errors, and the message may be translated. */
function isPlanOutdated(error: unknown): boolean {
  const { code, routine } = error as Partial<pg.DatabaseError>
  return code === '0A000' && routine === 'RevalidateCachedQuery'
}

/** This connection does not know the name, or somebody else's name is on it already. */
function isNameMisplaced(error: unknown): boolean {
  return ['26000', '42P05'].includes((error as Partial<pg.DatabaseError>).code ?? '')
}
