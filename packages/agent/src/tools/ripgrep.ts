import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { realpath, stat } from 'node:fs/promises'
import { basename, dirname, join, relative, resolve, sep } from 'node:path'
import { bundleFolder } from '@openoz/machine'
import { firstEnd, killedEnd } from '../child-end.ts'
import { errorCode, fileFailure } from './file-failure.ts'
import type { ToolCall } from './tool.ts'

/** A repository of a hundred thousand files takes seconds. */
const timeoutMs = 60_000
const maxErrorBytes = 8 * 1024

export interface SearchPlace {
  /** ripgrep runs here, so that what it prints is relative to it. */
  folder: string
  /** What it searches, from there. */
  target: string
  /** A path that ripgrep printed, as the model would write it. */
  nameOf(printed: string): string
}

/** Where to search. Rejects, in words for the model, when it is not there. */
export async function searchPlace(name: string, { workspace }: ToolCall): Promise<SearchPlace> {
  try {
    const path = await realpath(resolve(workspace.toolsFolder, name))
    const isFolder = (await stat(path)).isDirectory()
    const folder = isFolder ? path : dirname(path)
    const root = await realpath(workspace.toolsFolder)
    return {
      folder,
      target: isFolder ? './' : `./${basename(path)}`,
      nameOf(printed) {
        const full = join(folder, printed)
        const inside = relative(root, full)
        return inside.startsWith(`..${sep}`) ? full : inside
      },
    }
  } catch (error) {
    if (errorCode(error) === 'ENOENT') throw new Error(`${name} does not exist.`)
    throw fileFailure(error, name)
  }
}

/** `stopped`: `onRecord` had enough. */
export type SearchEnd = 'complete' | 'stopped' | 'timed_out'

interface Search {
  args: string[]
  folder: string
  call: ToolCall
  /** What ends a record on stdout. */
  separator: '\n' | '\0'
  /** One record, without its end. False: no more of them. */
  onRecord: (record: string) => boolean
}

/**
 * Runs ripgrep. Rejects with what it says of its arguments (a pattern that is none), in words for the model, or with the signal's reason; the process
 * has ended in every case. Files that could not be read are passed over, as ripgrep does.
 */
export async function searchFiles({ args, folder, call, separator, onRecord }: Search): Promise<SearchEnd> {
  call.signal.throwIfAborted()
  const child = spawn(await ripgrepPath(), ['--no-config', '--no-messages', '--color=never', ...args], {
    cwd: folder,
    env: call.env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const exited = new Promise<number | null>((done, reject) => {
    child.once('error', (error) => reject(startFailure(error)))
    // Not its exit: what it printed must have come, too. It starts nothing that could keep the pipes open.
    child.once('close', (code) => done(code))
  })
  let hasEnough = false
  const take = (record: string) => {
    hasEnough = !onRecord(record)
    if (hasEnough) child.kill('SIGKILL')
    return !hasEnough
  }
  child.stdout.on('data', splitRecords(separator, take))
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(0, maxErrorBytes)
  })
  const end = await firstEnd(exited, { timeoutMs, signal: call.signal })
  if (end === 'stopped' || end === 'timed_out') {
    child.kill('SIGKILL')
    await killedEnd(exited)
  }
  call.signal.throwIfAborted()
  if (hasEnough) return 'stopped'
  if (end === 'timed_out') return 'timed_out'
  // 0: something was found, 1: nothing. 2 also when only a file could not be read; then nothing is said.
  if (end !== 0 && end !== 1 && said.trim() !== '') throw new Error(said.trim())
  return 'complete'
}

/** Whole records of a stream of bytes, which may be cut anywhere. */
function splitRecords(separator: string, take: (record: string) => boolean): (chunk: Buffer) => void {
  const end = separator.charCodeAt(0)
  let pending: Buffer[] = []
  let isDone = false
  return (chunk) => {
    let from = 0
    for (let at = chunk.indexOf(end); at >= 0 && !isDone; at = chunk.indexOf(end, from)) {
      const record = Buffer.concat([...pending, chunk.subarray(from, at)]).toString('utf8')
      pending = []
      from = at + 1
      isDone = !take(record)
    }
    if (!isDone) pending.push(chunk.subarray(from))
  }
}

/** `OZ_RIPGREP` names the one of an installation that has no packages; else the agent bundle's, the package's, or the machine's own. */
async function ripgrepPath(): Promise<string> {
  const named = process.env.OZ_RIPGREP
  if (named) return named
  const bundle = bundleFolder()
  if (bundle !== undefined) return join(bundle, 'bin', 'rg')
  const packaged = await import('@vscode/ripgrep').then(
    ({ rgPath }) => rgPath,
    () => undefined,
  )
  return packaged !== undefined && existsSync(packaged) ? packaged : 'rg'
}

function startFailure(error: Error): Error {
  return new Error(`ripgrep could not be started (${error.message}). Search by a command instead.`, { cause: error })
}
