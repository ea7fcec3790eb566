/** The calls of the engine's API about containers, one function each. They fail as `engine.ts` says. Names and ids are interchangeable. */

import type { IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { asFailure, type Engine } from './engine.ts'
import { EngineFailure, isConflict, isMissing } from './engine-failure.ts'

/** The body of a create, as the API spells it; what of it is used here. */
export interface ContainerSpec {
  Image: string
  Entrypoint?: string[]
  Cmd?: string[]
  Env?: string[]
  WorkingDir?: string
  User?: string
  Hostname?: string
  Tty?: boolean
  OpenStdin?: boolean
  AttachStdin?: boolean
  AttachStdout?: boolean
  AttachStderr?: boolean
  StopSignal?: string
  Healthcheck?: { Test: string[] }
  Labels?: Record<string, string>
  Volumes?: Record<string, object>
  HostConfig?: ContainerHostConfig
  NetworkingConfig?: { EndpointsConfig: Record<string, object> }
}

export interface ContainerHostConfig {
  Binds?: string[]
  Mounts?: ContainerMount[]
  NetworkMode?: string
  Init?: boolean
  SecurityOpt?: string[]
  CapDrop?: string[]
  CapAdd?: string[]
  GroupAdd?: string[]
  PidsLimit?: number
  ReadonlyRootfs?: boolean
  Tmpfs?: Record<string, string>
  Runtime?: string
  UsernsMode?: string
  Dns?: string[]
  ExtraHosts?: string[]
  NanoCpus?: number
  Memory?: number
  MemorySwap?: number
  OomScoreAdj?: number
  LogConfig?: { Type: string; Config: Record<string, string> }
  RestartPolicy?: { Name: string }
  AutoRemove?: boolean
}

export interface ContainerMount {
  Type: 'volume' | 'bind' | 'tmpfs'
  Source?: string
  Target: string
  ReadOnly?: boolean
  VolumeOptions?: { NoCopy?: boolean; Labels?: Record<string, string> }
  BindOptions?: { Propagation?: string }
}

export interface ContainerState {
  Status: 'created' | 'running' | 'paused' | 'restarting' | 'removing' | 'exited' | 'dead'
  Running: boolean
  /** Of any process in it, not only of its first. */
  OOMKilled: boolean
  /** On the engine's machine; 0 when nothing runs. */
  Pid: number
  ExitCode: number
  /** Why it could not be started. */
  Error: string
  StartedAt: string
  FinishedAt: string
}

export interface ContainerDetails {
  Id: string
  /** With a slash before it. */
  Name: string
  Created: string
  /** What was started, and its arguments. */
  Path: string
  Args: string[]
  /** The image's id. */
  Image: string
  State: ContainerState
  Config: {
    Image: string
    Labels: Record<string, string> | null
    User: string
    Env: string[] | null
    Cmd: string[] | null
    WorkingDir: string
    Hostname: string
  }
  HostConfig: ContainerHostConfig
  Mounts: { Type: string; Name?: string; Source: string; Destination: string; RW: boolean }[]
  NetworkSettings: { Networks: Record<string, { NetworkID: string; IPAddress: string; Gateway: string }> | null }
}

export interface ListedContainer {
  Id: string
  Names: string[]
  Image: string
  State: ContainerState['Status']
  /** In words: "Exited (0) 3 minutes ago". */
  Status: string
  /** Seconds since 1970, on the engine's clock. */
  Created: number
  Labels: Record<string, string>
  Mounts: { Type: string; Name?: string; Destination: string }[]
}

/** What an engine may have to copy or remove whole file systems for. */
const slowMs = 10 * 60_000

/** 409 when the name is taken: making one by name is how to take a lock on an engine. 404 when there is no such image. */
export async function createContainer(
  engine: Engine,
  spec: ContainerSpec,
  { name, platform, signal }: { name: string; platform?: string; signal?: AbortSignal },
): Promise<{ Id: string; Warnings: string[] | null }> {
  return engine.json('POST', '/containers/create', { query: { name, platform }, body: spec, signal, timeoutMs: slowMs })
}

/** undefined: there is none. */
export async function inspectContainer(
  engine: Engine,
  id: string,
  signal?: AbortSignal,
): Promise<ContainerDetails | undefined> {
  return unlessMissing(engine.json<ContainerDetails>('GET', containerPath(id, '/json'), { signal }))
}

/** Those that have all of the labels, whatever their state. A label without `=` needs only be there. */
export async function listContainers(
  engine: Engine,
  { labels, signal }: { labels: string[]; signal?: AbortSignal },
): Promise<ListedContainer[]> {
  return engine.json('GET', '/containers/json', { query: { all: true, filters: { label: labels } }, signal })
}

/** Fine when it runs already. 400 and 404 also when its program, its runtime or its network is what is missing: the words tell. */
export async function startContainer(engine: Engine, id: string, signal?: AbortSignal): Promise<void> {
  await engine.json('POST', containerPath(id, '/start'), { signal, ok: [304] })
}

/** False when it does not run, or is not there. */
export async function killContainer(
  engine: Engine,
  id: string,
  { kill = 'SIGKILL', signal }: { kill?: string; signal?: AbortSignal } = {},
): Promise<boolean> {
  try {
    await engine.json('POST', containerPath(id, '/kill'), { query: { signal: kill }, signal })
    return true
  } catch (error) {
    if (isMissing(error) || isConflict(error)) return false
    throw error
  }
}

/** With its anonymous volumes, and whether it runs or not. Resolves once it is gone, whoever removed it. */
export async function removeContainer(engine: Engine, id: string, signal?: AbortSignal): Promise<void> {
  try {
    await engine.json('DELETE', containerPath(id), { query: { force: true, v: true }, signal, timeoutMs: slowMs })
  } catch (error) {
    if (isMissing(error)) return
    // Somebody else's removal is under way.
    if (!isConflict(error)) throw error
    await waitGone(engine, id, signal)
  }
}

/** Polls. Rejects after a minute. */
export async function waitGone(engine: Engine, id: string, signal?: AbortSignal): Promise<void> {
  const deadline = performance.now() + 60_000
  while (await inspectContainer(engine, id, signal)) {
    if (performance.now() > deadline)
      throw new EngineFailure(`DELETE ${containerPath(id)}`, 'its removal does not end', { status: 409 })
    await delay(200, undefined, { signal })
  }
}

/**
 * Unpacks a tar archive into a container, running or not; `path` has to be a folder there. Owners and modes are those of the archive, except of
 * `path` itself: to set those of a mount, unpack above it. 404 also when `path` is missing.
 */
export async function putArchive(
  engine: Engine,
  id: string,
  { path, archive, signal }: { path: string; archive: Buffer | Readable; signal?: AbortSignal },
): Promise<void> {
  await engine.json('PUT', containerPath(id, '/archive'), { query: { path }, archive, signal, timeoutMs: slowMs })
}

/** A file or folder of a container as a tar archive, whose names begin with the last part of `path`. undefined: there is no such path, or no container. */
export async function getArchive(
  engine: Engine,
  id: string,
  { path, signal }: { path: string; signal?: AbortSignal },
): Promise<IncomingMessage | undefined> {
  return unlessMissing(engine.stream('GET', containerPath(id, '/archive'), { query: { path }, signal }))
}

/** The end of what it wrote to stdout and stderr, in the order in which that came. Empty when there is no container. */
export async function logsTail(
  engine: Engine,
  id: string,
  { maxBytes, signal }: { maxBytes: number; signal?: AbortSignal },
): Promise<string> {
  const path = containerPath(id, '/logs')
  // The engine counts lines. Short ones are many; how much of long ones it keeps at all is for the container's log to limit.
  const query = { stdout: true, stderr: true, tail: Math.ceil(maxBytes / 4) }
  const stream = await unlessMissing(engine.stream('GET', path, { query, signal }))
  let frames = Buffer.alloc(0)
  let texts: Buffer[] = []
  let size = 0
  const tail = () => Buffer.concat(texts).subarray(-maxBytes)
  try {
    for await (const chunk of (stream ?? []) as AsyncIterable<Buffer>) {
      frames = Buffer.concat([frames, chunk])
      for (let end = frameEnd(frames); end !== undefined && end <= frames.length; end = frameEnd(frames)) {
        texts.push(frames.subarray(8, end))
        size += end - 8
        frames = frames.subarray(end)
      }
      // Not with each frame: that is a line, and copying the tail for each would hold up the whole worker for half a minute.
      if (size > 2 * maxBytes) {
        texts = [tail()]
        size = maxBytes
      }
    }
  } catch (error) {
    signal?.throwIfAborted()
    throw asFailure(`GET ${path}`, error)
  }
  return tail().toString('utf8')
}

/** A frame is a head of 8 bytes (which output; its length in the last four) and the text. */
function frameEnd(frames: Buffer): number | undefined {
  return frames.length < 8 ? undefined : 8 + frames.readUInt32BE(4)
}

function containerPath(id: string, rest = ''): string {
  return `/containers/${encodeURIComponent(id)}${rest}`
}

async function unlessMissing<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}
