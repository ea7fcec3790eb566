// Plain JavaScript without dependencies: it runs on whatever Node a machine has, before anything newer may be assumed.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { constants } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** A clone runs TypeScript as it is, and the libraries in use ask for Node 22. */
const oldestNode = [22, 18]

/** Set by scripts/build.ts. */
const isBundle = typeof OZ_VERSION === 'string'

/**
 * Starts a program in a Node that is new enough. There are three places to be started from: a clone
 * (`src/` is there), an installed package (`bin/` leads to `dist/`), and `dist/` itself, in which this file is bundled.
 *
 * @param {{ self: string, loadSource: () => Promise<{ main: (args: string[]) => Promise<void> }>, bundle: string }} program
 */
export async function start({ self, loadSource, bundle }) {
  const args = process.argv.slice(2)
  if (!isNewEnough(process.versions.node)) {
    await runElsewhere(findNode(), [fileURLToPath(self), ...args])
  } else if (isBundle || existsSync(new URL('../src/', self))) {
    const { main } = await loadSource()
    await main(args)
  } else {
    await import(new URL(`../dist/${bundle}`, self).href)
  }
}

function isNewEnough(version) {
  const [major, minor] = version.split('.').map(Number)
  return major > oldestNode[0] || (major === oldestNode[0] && minor >= oldestNode[1])
}

/** In the npm package `node`, whose `bin/node` on Windows is a text that says it is blank. */
export function nodeProgram(platform = process.platform) {
  return platform === 'win32' ? 'node.exe' : 'node'
}

/** The Node that the npm package `node` brings. */
function findNode() {
  try {
    const node = join(dirname(createRequire(import.meta.url).resolve('node/package.json')), 'bin', nodeProgram())
    if (existsSync(node)) return node
  } catch {
    // Not installed: said below.
  }
  console.error(
    `error: this program needs Node ${oldestNode.join('.')} or newer; this is ${process.versions.node}. ` +
      'Install a newer one, or run `npm ci` in the clone, which brings one.',
  )
  process.exit(1)
}

/** Node cannot replace its own process everywhere, so this one stays as a shell around the other: signals go in, the end comes out. */
async function runElsewhere(node, args) {
  const child = spawn(node, args, { stdio: 'inherit' })
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR2']
  const forward = (signal) => child.kill(signal)
  for (const signal of signals) process.on(signal, forward)
  const { code, signal } = await new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (exitCode, exitSignal) => resolve({ code: exitCode, signal: exitSignal }))
  })
  for (const name of signals) process.off(name, forward)
  if (signal === null) {
    process.exitCode = code
    return
  }
  process.kill(process.pid, signal)
  process.exitCode = 128 + constants.signals[signal]
}
