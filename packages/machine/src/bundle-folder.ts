import { existsSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/**
 * The agent bundle that this program runs from, as in a container; undefined from sources, from `dist/`, and from an npm package. A bundle keeps the
 * code in `app/` and its own loader in `lib/`.
 */
export function bundleFolder(): string | undefined {
  return folder
}

const folder = findFolder(import.meta.url)

export function findFolder(moduleUrl: string, exists: (path: string) => boolean = existsSync): string | undefined {
  if (!moduleUrl.endsWith('.mjs')) return undefined
  const app = dirname(fileURLToPath(moduleUrl))
  const found = dirname(app)
  const isBundle =
    basename(app) === 'app' && exists(join(found, 'manifest.json')) && exists(join(found, 'lib', 'ld.so'))
  return isBundle ? found : undefined
}
