import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { Duplex } from 'node:stream'
import type { EngineTarget } from './engine-address.ts'

type SshTarget = Extract<EngineTarget, { kind: 'ssh' }>

/** How much of what `ssh` complains of is kept. */
const maxSaid = 2_000

/**
 * A connection to an engine on another machine: the user's own `ssh`, with its keys, hosts and settings, runs `docker system dial-stdio`
 * there. That is how `docker` itself does it.
 */
export function dialOverSsh(target: SshTarget, env: NodeJS.ProcessEnv): Duplex {
  return new SshConnection(spawn('ssh', sshArguments(target), { env: withoutKeys(env) }))
}

/** Nobody is there to be asked for a password (BatchMode). */
export function sshArguments({ host, user, port, socketPath }: SshTarget): string[] {
  const login = [...(user === undefined ? [] : ['-l', user]), ...(port === undefined ? [] : ['-p', String(port)])]
  const options = ['BatchMode=yes', 'ConnectTimeout=30', 'ServerAliveInterval=30'].flatMap((option) => ['-o', option])
  const docker = socketPath === undefined ? ['docker'] : ['docker', '--host', `unix://${socketPath}`]
  return [...options, '-T', ...login, '--', host, ...docker, 'system', 'dial-stdio']
}

/** The worker's keys are not `ssh`'s to send. */
function withoutKeys(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { OZ_API_KEY: _, WARP_API_KEY: __, ...rest } = env
  return rest
}

/** The two pipes of a process as one connection. The socket's own switches, which Node's agent turns, mean nothing here. */
class SshConnection extends Duplex {
  readonly #child: ChildProcessWithoutNullStreams
  #said = ''

  constructor(child: ChildProcessWithoutNullStreams) {
    super({ allowHalfOpen: false })
    this.#child = child
    child.stdout.on('data', (chunk: Buffer) => {
      if (!this.push(chunk)) child.stdout.pause()
    })
    child.stderr.on('data', (chunk: Buffer) => {
      this.#said = (this.#said + chunk.toString('utf8')).slice(-maxSaid)
    })
    // It tells why on stderr; the write that failed for it knows nothing.
    child.stdin.on('error', () => {})
    child.once('error', (error) => this.destroy(new Error(`ssh cannot be started: ${error.message}`)))
    child.once('close', (code) => {
      if (code === 0) this.push(null)
      else this.destroy(new Error(`ssh: ${lastLine(this.#said) || `ended with exit code ${code}`}`))
    })
  }

  override _read(): void {
    this.#child.stdout.resume()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    // An error shows as the end of the process, with its reason.
    this.#child.stdin.write(chunk, () => done())
  }

  override _final(done: () => void): void {
    this.#child.stdin.end(() => done())
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    // What `ssh` has started over there, or here when it is a program of the operator's, ends with its input.
    this.#child.stdin.destroy()
    this.#child.stdout.destroy()
    this.#child.kill()
    done(error)
  }

  /** Called by Node at the end of an answer that is not to be followed by another. */
  destroySoon(): void {
    this.end(() => this.destroy())
  }

  setKeepAlive(): this {
    return this
  }

  setNoDelay(): this {
    return this
  }

  setTimeout(): this {
    return this
  }

  ref(): this {
    return this
  }

  unref(): this {
    return this
  }
}

function lastLine(text: string): string {
  const lines = text.split(/\r?\n/).map((line) => line.trim())
  return lines.findLast((line) => line !== '') ?? ''
}
