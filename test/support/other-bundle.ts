import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type AgentBundle, bundleHash } from '@openoz/worker'

const execute = promisify(execFile)

/** The same programs, and another hash. */
export async function otherBundle(bundle: AgentBundle, into: string): Promise<AgentBundle> {
  await execute('cp', ['-al', bundle.folder, into])
  const path = 'app/LICENSE'
  const text = `${readFileSync(join(into, path), 'utf8')}\n`
  rmSync(join(into, path))
  writeFileSync(join(into, path), text)
  const sha256 = createHash('sha256').update(text).digest('hex')
  const change = { size: Buffer.byteLength(text), sha256 }
  const files = bundle.manifest.files.map((file) =>
    file.path === path && 'mode' in file ? { ...file, ...change } : file,
  )
  const manifest = { ...bundle.manifest, files, hash: bundleHash(files) }
  rmSync(join(into, 'manifest.json'))
  writeFileSync(join(into, 'manifest.json'), JSON.stringify(manifest))
  return { folder: into, manifest }
}
