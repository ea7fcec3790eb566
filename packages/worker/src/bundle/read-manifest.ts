import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type AgentManifest, AppError } from '@openoz/protocol'
import { agentManifest } from '@openoz/protocol/schemas'

/** An agent bundle on this machine. */
export interface AgentBundle {
  folder: string
  manifest: AgentManifest
}

/** undefined when there is none; rejects with `agent_bundle_broken` when what is there is not one that this version knows. */
export async function readBundle(folder: string): Promise<AgentBundle | undefined> {
  let text: string
  try {
    text = await readFile(join(folder, 'manifest.json'), 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw brokenBundle(folder, `manifest.json cannot be read (${code})`, error)
  }
  return { folder, manifest: parse(text, folder) }
}

function parse(text: string, folder: string): AgentManifest {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw brokenBundle(folder, 'manifest.json is no JSON', error)
  }
  const { success, data, error } = agentManifest.safeParse(json)
  if (success) return data
  const { path, message } = error.issues[0] ?? { path: [], message: 'not understood' }
  throw brokenBundle(folder, `manifest.json is not valid at \`${path.join('.')}\`: ${message}`, error)
}

export function brokenBundle(folder: string, problem: string, cause?: unknown): AppError {
  return new AppError('agent_bundle_broken', { folder, problem }, { cause })
}
