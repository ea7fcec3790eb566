import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

const embeddedPostgres = new URL('../embedded-postgres.ts', import.meta.url).href
const dataDirLock = new URL('../data-dir-lock.ts', import.meta.url).href

export interface ServerProcess extends AsyncDisposable {
  pid: number
  /** The object that the script printed with `say`. */
  said: Record<string, unknown>
  kill(signal: NodeJS.Signals): Promise<void>
}

/** Stands for a server: takes the lock, runs `script` (in which `say`, `startEmbeddedPostgres`, `lockDataDir`, `dataDir` are known), stays. */
export async function serverProcess(
  dataDir: string,
  script: string,
  user?: { uid: number; gid: number },
): Promise<ServerProcess> {
  const source = `
    import { startEmbeddedPostgres } from ${JSON.stringify(embeddedPostgres)}
    import { lockDataDir } from ${JSON.stringify(dataDirLock)}
    const dataDir = ${JSON.stringify(dataDir)}
    const log = { info() {}, warn() {}, error() {} }
    const say = (object) => console.log(JSON.stringify(object))
    setInterval(() => {}, 60_000)
    try { ${script} } catch (error) { say({ code: error.code, message: error.message }) }
  `
  const child = spawn(process.execPath, ['--input-type=module', '--eval', source], {
    ...user,
    cwd: '/',
    env: { PATH: process.env.PATH },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const said = await firstLine(child)
  const pid = child.pid ?? 0
  const kill = async (signal: NodeJS.Signals) => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill(signal)
    await exited
  }
  return { pid, said, kill, [Symbol.asyncDispose]: () => kill('SIGKILL') }
}

async function firstLine(child: ChildProcess): Promise<Record<string, unknown>> {
  if (!child.stdout) throw new Error('the process has no output')
  for await (const line of createInterface({ input: child.stdout })) return JSON.parse(line)
  throw new Error('the process ended without saying anything')
}
