// `npm test`, `npm start` and `npm run demo` each work in a fresh clone: this installs what is missing and then runs the program under the
// Node that came with it. Plain JavaScript for Node 20, before anything is installed.
import { spawn } from 'node:child_process'
import { existsSync, statSync } from 'node:fs'
import { constants } from 'node:os'
import { delimiter, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const binFolder = join(root, 'node_modules', '.bin')
const [program, ...args] = process.argv.slice(2)

if (program === undefined) {
  console.error('Usage: node scripts/with-dependencies.mjs PROGRAM [ARGUMENTS]')
  process.exit(2)
}
if (isInstallMissing()) await install()
await runProgram()

/** npm writes the second file at the end of an install, so an interrupted one counts as missing. */
function isInstallMissing() {
  const installed = join(root, 'node_modules', '.package-lock.json')
  if (!existsSync(installed)) return true
  return statSync(join(root, 'package-lock.json')).mtimeMs > statSync(installed).mtimeMs
}

async function install() {
  const startedAt = Date.now()
  const say = () => `Installing dependencies, once … ${Math.round((Date.now() - startedAt) / 1000)} s`
  // On stderr: stdout belongs to the program.
  const draw = () => process.stderr.write(`\r${say()}`)
  if (!process.stderr.isTTY) process.stderr.write('Installing dependencies, once …\n')
  const timer = process.stderr.isTTY ? setInterval(draw, 1000) : undefined
  const flags = ['ci', '--no-audit', '--no-fund', '--loglevel=error', '--progress=false']
  const npm = process.env.npm_execpath
  const command = npm?.endsWith('.js') ? [process.execPath, npm] : [process.platform === 'win32' ? 'npm.cmd' : 'npm']
  const child = spawn(command[0], [...command.slice(1), ...flags], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
  const output = []
  child.stdout.on('data', (chunk) => output.push(chunk))
  child.stderr.on('data', (chunk) => output.push(chunk))
  const { code } = await endOf(child)
  clearInterval(timer)
  if (process.stderr.isTTY) process.stderr.write(`\r${say()}\n`)
  if (code === 0) return
  process.stderr.write(Buffer.concat(output))
  console.error('\nThe dependencies could not be installed (`npm ci`, output above).')
  process.exit(1)
}

async function runProgram() {
  const node = join(binFolder, process.platform === 'win32' ? 'node.cmd' : 'node')
  // Not the folder that this was called in: the program's path is relative to the clone.
  const child = spawn(node, [resolve(root, program), ...args], {
    stdio: 'inherit',
    env: { ...process.env, PATH: `${binFolder}${delimiter}${process.env.PATH ?? ''}` },
  })
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP']
  const forward = (signal) => child.kill(signal)
  for (const signal of signals) process.on(signal, forward)
  const { code, signal } = await endOf(child)
  for (const name of signals) process.off(name, forward)
  if (signal === null) {
    process.exitCode = code
    return
  }
  process.kill(process.pid, signal)
  process.exitCode = 128 + constants.signals[signal]
}

function endOf(child) {
  return new Promise((resolvePromise, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => resolvePromise({ code, signal }))
  })
}
