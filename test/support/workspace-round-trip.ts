import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { SourceRepo } from '@openoz/protocol'
import { prepareRepositories, type Workspace } from '../../packages/agent/src/workspace/prepare.ts'
import { restoreWorkspace } from '../../packages/agent/src/workspace/restore.ts'
import { type SavedState, saveWorkspace } from '../../packages/agent/src/workspace/save.ts'
import { makeRepository } from './agent-fixture.ts'
import { createRecordingSink } from './recording-sink.ts'

/** Workspaces as one execution leaves them, saved into a folder of blobs, and put back for the next one somewhere else. */
export function startRoundTrip() {
  const folder = mkdtempSync(join(tmpdir(), 'oz-round-trip-'))
  for (const name of ['home', 'blobs']) mkdirSync(join(folder, name))
  const origin = makeRepository(join(folder, 'origin'), {
    'a.txt': 'one\n',
    'b.txt': 'two\n',
    '.gitignore': 'ignored\n',
  })
  const env = { PATH: process.env.PATH, HOME: join(folder, 'home') }
  const signal = new AbortController().signal
  let workspaces = 0
  let blobs = 0

  /** In a folder of its own, or in one that is there from an execution before. */
  async function begin(
    sources: SourceRepo[],
    { at = join(folder, `workspace-${++workspaces}`), restores = false }: { at?: string; restores?: boolean } = {},
  ): Promise<Workspace> {
    mkdirSync(at, { recursive: true })
    const sink = createRecordingSink()
    const mask = (text: string) => text
    const timeoutMs = 60_000
    return prepareRepositories({ sources, folder: at, runId: 'run-1', env, timeoutMs, signal, sink, mask, restores })
  }

  function save(workspace: Workspace, maxBytes = 10_000_000): Promise<SavedState> {
    const store = async (file: string) => {
      const id = `blob-${++blobs}`
      copyFileSync(file, join(folder, 'blobs', id))
      return id
    }
    return saveWorkspace({ ...workspace, env, maxBytes, signal, store })
  }

  async function restore(saved: SavedState, sources: SourceRepo[], { at }: { at?: string } = {}) {
    const workspace = await begin(sources, { at, restores: true })
    const download = async (id: string, file: string) => copyFileSync(join(folder, 'blobs', id), file)
    const request = { ...workspace, saved: saved.repositories, env, timeoutMs: 60_000, signal, download }
    const { repositories, found, notes } = await restoreWorkspace(request)
    return {
      workspace: { ...workspace, repositories, found },
      notes,
      at: (path: string) => join(workspace.folder, path),
    }
  }

  /** One repository, in the folder `origin`: cloned, changed, saved, put back elsewhere. */
  async function roundTrip(
    change: (work: string) => void,
    { source = `file://${origin}`, maxBytes }: { source?: string; maxBytes?: number } = {},
  ) {
    const sources = [{ url: source, dir: 'origin' }]
    const workspace = await begin(sources)
    const before = join(workspace.folder, 'origin')
    change(before)
    const saved = await save(workspace, maxBytes)
    const restored = await restore(saved, sources)
    return { ...restored, saved, before, after: restored.at('origin') }
  }

  return {
    folder,
    origin,
    begin,
    save,
    restore,
    roundTrip,
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  }
}

/** With the folders on its way. */
export function write(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, text)
}
