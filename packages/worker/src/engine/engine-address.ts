/**
 * Which Docker engine is meant, by the variables and files that `docker` itself goes by. The first that says something wins:
 *
 *   DOCKER_HOST → DOCKER_CONTEXT → the default sockets, root's and then rootless ones → `currentContext` of config.json
 *
 * `docker` asks config.json before the default socket. Here a context that somebody once chose for typing commands does not take a
 * worker away from the engine of its own machine; DOCKER_CONTEXT does. `source` says in every message which it was.
 */

import { accessSync, constants, existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { AppError } from '@openoz/protocol'
import { dockerConfigFile, dockerConfigFolder, readDockerConfig } from './docker-config.ts'
import { readContext } from './engine-context.ts'
import { type EngineTls, readTls } from './engine-tls.ts'

/** Where an engine listens. `tcp` is without encryption. */
export type EngineTarget =
  | { kind: 'unix'; socketPath: string }
  | { kind: 'tcp'; host: string; port: number; pathPrefix: string }
  | { kind: 'tls'; host: string; port: number; pathPrefix: string; tls: EngineTls }
  /** By the user's `ssh`, whose configuration names keys and hosts. `socketPath`: of the engine there, if it is not the usual one. */
  | { kind: 'ssh'; host: string; user?: string; port?: number; socketPath?: string }

export type EngineAddress = EngineTarget & {
  /** For messages and logs: as people write it, without a password. */
  display: string
  /** Who named it, for messages: "DOCKER_HOST". */
  source: string
}

/** The socket of an engine that root runs. */
const rootSocket = '/var/run/docker.sock'

/** Throws `docker_context_invalid`, `docker_config_unreadable`, or `option_invalid` for a variable. Connects to nothing. */
export function findEngine(env: NodeJS.ProcessEnv, { socket = rootSocket } = {}): EngineAddress {
  if (env.DOCKER_HOST) {
    const problem = (text: string) => new AppError('option_invalid', { option: 'DOCKER_HOST', problem: text })
    return { ...parseAddress(env.DOCKER_HOST, { problem, tls: () => readTls(env) }), source: 'DOCKER_HOST' }
  }
  // The context of this name is none: it stands for the default socket.
  if (env.DOCKER_CONTEXT && env.DOCKER_CONTEXT !== 'default') {
    return ofContext(env, env.DOCKER_CONTEXT, `context ${env.DOCKER_CONTEXT} of DOCKER_CONTEXT`)
  }
  const sockets = [socket, ...rootlessSockets(env)]
  const found = sockets.find(isUsable) ?? sockets.find((path) => existsSync(path))
  if (found !== undefined) return unixAddress(found, found === socket ? 'the default socket' : 'the rootless socket')
  const current = env.DOCKER_CONTEXT === 'default' ? undefined : readDockerConfig(env).currentContext
  if (current && current !== 'default') return ofContext(env, current, `context ${current} of ${dockerConfigFile(env)}`)
  const others = sockets.slice(1).join(' or ')
  return unixAddress(socket, `the default socket; there is no ${others} either, and no DOCKER_HOST or DOCKER_CONTEXT`)
}

function ofContext(env: NodeJS.ProcessEnv, context: string, source: string): EngineAddress {
  const problem = (text: string) => new AppError('docker_context_invalid', { context, problem: text })
  const { host, tls } = readContext(dockerConfigFolder(env), context, problem)
  return { ...parseAddress(host, { problem, tls: () => tls }), source }
}

function rootlessSockets(env: NodeJS.ProcessEnv): string[] {
  const runtime = env.XDG_RUNTIME_DIR ? [join(env.XDG_RUNTIME_DIR, 'docker.sock')] : []
  return [...runtime, join(env.HOME || homedir(), '.docker/run/docker.sock')]
}

/** Someone with a rootless engine often may not use the machine's own, whose socket is there as well. */
function isUsable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK)
    return true
  } catch {
    return false
  }
}

function unixAddress(socketPath: string, source: string): EngineAddress {
  return { kind: 'unix', socketPath, display: `unix://${socketPath}`, source }
}

interface ParseOptions {
  problem: (text: string) => AppError
  /** Asked for addresses that may be encrypted. undefined: nothing says that it is. */
  tls: () => EngineTls | undefined
}

function parseAddress(text: string, { problem, tls }: ParseOptions): EngineTarget & { display: string } {
  const scheme = /^([a-z]+):\/\//.exec(text)?.[1]
  if (scheme === 'unix') {
    const socketPath = text.slice('unix://'.length)
    if (!socketPath.startsWith('/')) throw problem('a unix:// address names an absolute path')
    return { kind: 'unix', socketPath, display: text }
  }
  if (scheme === 'npipe') throw problem('npipe:// is for workers on Windows, and there are none')
  if (scheme === undefined || !['tcp', 'http', 'https', 'ssh'].includes(scheme))
    throw problem('it must begin with unix://, tcp:// or ssh://')
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (!url || url.hostname === '') throw problem('it names no host')
  if (url.password !== '') throw problem('it holds a password, which is not supported')
  return scheme === 'ssh' ? sshTarget(url, problem) : tcpTarget(url, tls() ?? (scheme === 'https' ? {} : undefined))
}

function tcpTarget(url: URL, tls: EngineTls | undefined): EngineTarget & { display: string } {
  const defaultPorts: Record<string, number> = { 'http:': 80, 'https:': 443 }
  const port = Number(url.port) || (defaultPorts[url.protocol] ?? (tls ? 2376 : 2375))
  const place = { host: url.hostname.replace(/^\[(.*)\]$/, '$1'), port, pathPrefix: url.pathname.replace(/\/$/, '') }
  const display = `tcp://${url.hostname}:${port}${place.pathPrefix}`
  return tls ? { kind: 'tls', ...place, tls, display } : { kind: 'tcp', ...place, display }
}

function sshTarget(url: URL, problem: ParseOptions['problem']): EngineTarget & { display: string } {
  const user = decodeURIComponent(url.username) || undefined
  const socketPath = url.pathname.replace(/\/$/, '') || undefined
  // It is read by a shell on the other side.
  if (socketPath && !/^[\w./-]+$/.test(socketPath))
    throw problem('the path of the socket has characters that it may not')
  const port = Number(url.port) || undefined
  return { kind: 'ssh', host: url.hostname.replace(/^\[(.*)\]$/, '$1'), user, port, socketPath, display: url.href }
}
