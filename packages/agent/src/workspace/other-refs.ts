import { type GitOptions, gitQuestion } from './git.ts'
import { type CheckoutStart, listRefs } from './own-changes.ts'

/** A full name, and what it stands for. */
export type NamedRef = [ref: string, id: string]

/** Each of them costs a git process to look at. */
const maxBranches = 100
/** All of them are arguments of one command. */
const maxUsersTips = 500

/**
 * Branches and tags with commits that neither the base nor a remote has, and what was stashed last. Of a person's (`start`), only what is new, and
 * never a stash, nor what was made out of one: with what the run did, it holds what the person had not committed.
 */
export async function findOtherRefs(
  {
    current,
    base,
    start,
    leave,
  }: {
    /** The branch that is checked out: it is saved anyway. */
    current: string | null
    base: string | null
    start: CheckoutStart | undefined
    leave: (what: string) => void
  },
  options: GitOptions,
): Promise<{ refs: NamedRef[]; hasStashed: boolean }> {
  const all = Object.entries(await listRefs(options, { notMergedInto: base }))
  const others = all.filter(([ref, id]) => ref !== `refs/heads/${current}` && start?.refs[ref] !== id)
  const isKeptHere = ([ref]: NamedRef) => start !== undefined && ref === 'refs/stash'
  const hasStashed = others.some(isKeptHere)
  if (hasStashed) leave('the stash that was made during the run (it may hold what was not committed before)')
  const candidates = others.filter((one) => !isKeptHere(one))
  const refs: NamedRef[] = []
  for (const [ref, id] of candidates.slice(0, maxBranches)) {
    const own = [id, '--not', '--remotes', ...usersTips(start)]
    if (!(await gitQuestion(['rev-list', '--max-count=1', ...own], options))) continue
    if (start && (await holdsStash(own, options)))
      leave(`${shortName(ref)}, made out of a stash (it may hold what was not committed before)`)
    else refs.push([ref, id])
  }
  if (candidates.length > maxBranches) leave(`${candidates.length - maxBranches} more branches and tags`)
  return { refs, hasStashed }
}

/** A person's own commits do not leave the machine with the run's. */
export function usersTips(start: CheckoutStart | undefined): string[] {
  return [...new Set(Object.values(start?.refs ?? {}))].slice(0, maxUsersTips)
}

/**
 * Whether there is a stash among these commits (arguments of `git log`), whoever made it and whatever it is named now: a merge of the commit
 * that was checked out and of one of the index then, on top of the same commit, which git calls so.
 */
async function holdsStash(commits: string[], options: GitOptions): Promise<boolean> {
  const parents = async (args: string[], input?: string) => {
    const listed = await gitQuestion(['log', '--format=%H %P', ...args], { ...options, input })
    return listed ? listed.split('\n').map((line) => line.split(' ')) : []
  }
  const merges = await parents(['--merges', ...commits])
  if (merges.length === 0) return false
  // Among all commits: one of the index may be older than the run, since stashes of the same second share it.
  const seconds = merges.map(([, , second]) => `${second}\n`).join('')
  const indexes = new Map(
    (await parents(['--no-walk', '--grep=^index on ', '--stdin'], seconds)).map(([id = '', parent]) => [id, parent]),
  )
  return merges.some(([, first, second = '']) => indexes.get(second) === first)
}

function shortName(ref: string): string {
  return ref.replace(/^refs\/heads\//, 'the branch ').replace(/^refs\/tags\//, 'the tag ')
}
