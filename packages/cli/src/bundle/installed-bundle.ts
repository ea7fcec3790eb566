import { cp, mkdtemp, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { readVersion } from '../version.ts'
import { notBuilt } from './libraries.ts'
import { makeBundle } from './make-bundle.ts'

/** The folder of the built programs that this is one of. Throws `agent_bundle_not_built` in sources, where the build is what makes bundles. */
export function installedProgram(moduleUrl: string = import.meta.url): string {
  if (moduleUrl.endsWith('.ts'))
    throw notBuilt('these are sources, and `npm run build` makes it together with the programs')
  return dirname(fileURLToPath(moduleUrl))
}

/** What the build keeps for here, and what it has made. */
const notCode = ['agent', 'bundle']

/** A bundle of the programs as they are installed, the control plane with them: nothing is compiled anew. */
export async function makeInstalledBundle(wish: {
  into: string
  cache: string
  path: string
}): ReturnType<typeof makeBundle> {
  const program = installedProgram()
  const app = await mkdtemp(join(wish.cache, 'app-'))
  try {
    await cp(program, app, {
      recursive: true,
      verbatimSymlinks: true,
      filter: (source) => dirname(source) !== program || !notCode.includes(basename(source)),
    })
    return await makeBundle({ app, version: readVersion(), from: import.meta.url, ...wish })
  } finally {
    await rm(app, { recursive: true, force: true })
  }
}
