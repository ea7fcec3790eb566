import { randomUUID } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { AppError, type SavedWorkspace } from '@openoz/protocol'
import type { Connection } from '../connection.ts'
import { askGit, git, tryGit } from './git.ts'
import { downloadBundle } from './workspace-download.ts'

/**
 * Puts what a run changed into a clone on this machine as a branch: the run's commits, and one more with what it left uncommitted. The
 * objects come as a git bundle that builds on the commit from which the run started. Nothing but that branch changes in the clone: no working
 * tree, no index, no other ref. Doing it again gives the same commits.
 */
export interface CheckoutRequest {
  connection: Connection
  runId: string
  /** The clone, or a folder in it. */
  repo: string
  branch?: string
  /** Which repository of the workspace. */
  dir?: string
  /** What this attempt had changed, from 1, though another one was at work by then. */
  attempt?: number
  force?: boolean
}

export interface CheckoutResult {
  run_id: string
  /** Top folder of the clone. */
  repository: string
  /** null: the run changed nothing in this repository. */
  branch: string | null
  commit: string | null
  base: string | null
  commits: number
  uncommitted: boolean
  files_changed: number
  insertions: number
  deletions: number
  left_out: string[]
}

type SavedRepository = SavedWorkspace['repositories'][number] & { index: number }

export async function checkoutRun(request: CheckoutRequest): Promise<CheckoutResult> {
  const { connection, runId, attempt } = request
  const folder = await findClone(request.repo)
  const usualBranch = attempt === undefined ? `oz/${runId}` : `oz/${runId}-attempt-${attempt}`
  const branch = await checkBranchName(request.branch ?? usualBranch, folder)
  const workspace = await connection.client.runs.workspace(runId, attempt === undefined ? {} : { attempt })
  const saved = await chooseRepository({ workspace, folder, runId, dir: request.dir })
  const summary = {
    run_id: runId,
    repository: folder,
    base: saved.base,
    commits: saved.commits,
    uncommitted: saved.uncommitted,
    files_changed: saved.files_changed,
    insertions: saved.insertions,
    deletions: saved.deletions,
    left_out: workspace.left_out,
  }
  const commit = saved.has_bundle
    ? await fetchWork({ connection, runId, attempt, folder, saved })
    : workWithoutBundle(saved, workspace)
  if (commit === null) return { ...summary, branch: null, commit: null }
  await moveBranch({ folder, branch, commit, runId, force: request.force ?? false })
  return { ...summary, branch, commit }
}

/** The top folder of a working tree, or the folder of a bare repository. Rejects with `clone_missing`. */
export async function findClone(path: string): Promise<string> {
  const { exitCode, stderr } = await tryGit(['rev-parse', '--verify', '--quiet', 'HEAD^{commit}'], { folder: path })
  if (stderr.includes('dubious ownership')) {
    const problem = 'the repository belongs to another user; `git config --global --add safe.directory` allows it'
    throw new AppError('git_command_failed', { command: 'rev-parse', folder: path, problem })
  }
  if (exitCode !== 0) throw new AppError('clone_missing', { folder: path })
  return (
    (await askGit(['rev-parse', '--show-toplevel'], { folder: path })) ??
    (await git(['rev-parse', '--absolute-git-dir'], { folder: path }))
  )
}

async function checkBranchName(branch: string, folder: string): Promise<string> {
  const isValid = (await askGit(['check-ref-format', `refs/heads/${branch}`], { folder })) !== undefined
  if (isValid && !branch.startsWith('-')) return branch
  throw new AppError('flag_invalid', { option: '--branch', problem: `"${branch}" is no name for a branch` })
}

/** The repository of the workspace that this clone is a clone of: it has the commit from which the run started. */
async function chooseRepository(choice: {
  workspace: SavedWorkspace
  folder: string
  runId: string
  dir: string | undefined
}): Promise<SavedRepository> {
  const { workspace, folder, runId, dir } = choice
  const all = workspace.repositories.map((repository, index) => ({ ...repository, index }))
  const named = dir === undefined ? all : all.filter((repository) => repository.dir === dir)
  const fitting: SavedRepository[] = []
  for (const repository of named) {
    if (repository.base === null ? dir !== undefined : await hasCommit(repository.base, folder))
      fitting.push(repository)
  }
  const [first, ...others] = fitting
  if (first && others.length === 0) return first
  if (first) {
    throw new AppError('checkout_ambiguous', { runId, dirs: fitting.map((repository) => repository.dir).join(', ') })
  }
  const wanted = named.find((repository) => repository.base !== null)
  if (!wanted) throw new AppError('workspace_not_saved', { runId })
  throw new AppError('checkout_base_missing', { folder, base: wanted.base ?? '', runId })
}

async function hasCommit(commit: string, folder: string): Promise<boolean> {
  return (await askGit(['cat-file', '-e', `${commit}^{commit}`], { folder })) !== undefined
}

/** Nothing new came into being: nothing was changed, or the branch was only moved back. */
function workWithoutBundle(saved: SavedRepository, workspace: SavedWorkspace): string | null {
  if (saved.commits > 0 || saved.uncommitted) {
    const reason = workspace.left_out.join('; ') || 'the server does not say why'
    throw new AppError('checkout_left_out', { runId: workspace.run_id, dir: saved.dir, reason })
  }
  return saved.head === saved.base ? null : saved.head
}

/** Brings the objects into the clone and returns the commit that the branch shall point to. */
async function fetchWork(work: {
  connection: Connection
  runId: string
  attempt: number | undefined
  folder: string
  saved: SavedRepository
}): Promise<string | null> {
  const { connection, runId, attempt, folder, saved } = work
  const temporary = await mkdtemp(join(tmpdir(), 'oz-checkout-'))
  // Only for this fetch: git keeps objects that nothing refers to for two weeks, and the branch is moved in a moment.
  const held = `refs/oz/checkout-${randomUUID()}`
  try {
    const bundle = join(temporary, 'work.bundle')
    await writeFile(bundle, await downloadBundle(connection, { runId, index: saved.index, attempt }), { mode: 0o600 })
    const quiet = ['--quiet', '--no-tags', '--no-write-fetch-head', '--no-recurse-submodules', '--no-auto-maintenance']
    await git(['fetch', ...quiet, bundle, `refs/oz/*:${held}/*`], { folder })
    const head = await askGit(['rev-parse', '--verify', '--quiet', `${held}/head`], { folder })
    const worktree = await askGit(['rev-parse', '--verify', '--quiet', `${held}/worktree`], { folder })
    // The bundle holds other branches alone: where the run left its own, nothing is new.
    if (worktree === undefined) return saved.head === saved.base ? null : saved.head
    return head === worktree ? worktree : await commitLeftover({ folder, head, worktree, runId })
  } finally {
    await dropRefs(`${held}/`, folder)
    await rm(temporary, { recursive: true, force: true })
  }
}

/** All of them in one go: which refs a bundle brings is the agent's business. */
async function dropRefs(below: string, folder: string): Promise<void> {
  const commands = await askGit(['for-each-ref', '--format=delete %(refname)', below], { folder })
  if (commands) await tryGit(['update-ref', '--stdin'], { folder, input: Buffer.from(`${commands}\n`) })
}

/** The uncommitted work as a commit that says so. Author and dates are those of the saved one: the same run gives the same commit. */
async function commitLeftover(leftover: {
  folder: string
  head: string | undefined
  worktree: string
  runId: string
}): Promise<string> {
  const { folder, head, worktree, runId } = leftover
  const [name = '', email = '', date = ''] = (
    await git(['show', '--no-patch', '--no-show-signature', '--format=%an%n%ae%n%aI', worktree], { folder })
  ).split('\n')
  const parent = head === undefined ? [] : ['-p', head]
  const message = `Uncommitted work of run ${runId}`
  return git(['-c', 'commit.gpgSign=false', 'commit-tree', `${worktree}^{tree}`, ...parent, '-m', message], {
    folder,
    env: {
      GIT_AUTHOR_NAME: name,
      GIT_AUTHOR_EMAIL: email,
      GIT_AUTHOR_DATE: date,
      GIT_COMMITTER_NAME: name,
      GIT_COMMITTER_EMAIL: email,
      GIT_COMMITTER_DATE: date,
    },
  })
}

async function moveBranch(move: {
  folder: string
  branch: string
  commit: string
  runId: string
  force: boolean
}): Promise<void> {
  const { folder, branch, commit, runId, force } = move
  const ref = `refs/heads/${branch}`
  const existing = await askGit(['rev-parse', '--verify', '--quiet', ref], { folder })
  if (existing === commit) return
  if (existing !== undefined) {
    const user = await whereCheckedOut(ref, folder)
    if (user !== undefined) throw new AppError('checkout_branch_in_use', { branch, folder: user })
    const isAncestor = (await askGit(['merge-base', '--is-ancestor', existing, commit], { folder })) !== undefined
    if (!isAncestor && !force) throw new AppError('checkout_branch_exists', { branch, runId })
  }
  // With the old value, so that a branch that somebody moves in the same moment is not overwritten.
  const expected = existing ?? '0'.repeat(commit.length)
  await git(['update-ref', '-m', `oz run checkout ${runId}`, ref, commit, expected], { folder })
}

/** Moving a checked-out branch would make its working tree look like one big change. */
async function whereCheckedOut(ref: string, folder: string): Promise<string | undefined> {
  const list = (await git(['worktree', 'list', '--porcelain'], { folder })).split('\n\n')
  const user = list.find((entry) => entry.split('\n').includes(`branch ${ref}`))
  return user?.split('\n')[0]?.replace(/^worktree /, '')
}
