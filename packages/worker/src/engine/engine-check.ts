import { AppError } from '@openoz/protocol'
import type { Engine } from './engine.ts'
import { engineProblem } from './engine-failure.ts'

/** CPUs that there is an agent for. */
export type EnginePlatform = 'linux/amd64' | 'linux/arm64'

/** What an engine says of itself and its machine. */
export interface EngineFacts {
  /** Not unique: engines of one machine share it. */
  id: string
  version: string
  apiVersion: string
  platform: EnginePlatform
  operatingSystem: string
  cgroup: 1 | 2
  cpus: number
  memoryBytes: number
  isRootless: boolean
  /** It maps the users of containers to others of its machine. */
  hasUserns: boolean
  /** Containers go on while the engine is restarted. */
  liveRestore: boolean
  runtimes: string[]
  /** Its socket is a file here. Whether paths mean the same to it is another question: it may still run in a virtual machine. */
  isLocal: boolean
}

const limitMs = 5_000

/** Rejects with what an operator can act on: `engine_unreachable`, `engine_permission`, `engine_not_linux`, and so on. 5 s at most per question. */
export async function checkEngine(engine: Engine, signal?: AbortSignal): Promise<EngineFacts> {
  const { address } = engine
  const request = { signal, timeoutMs: limitMs }
  let version: VersionAnswer
  let info: InfoAnswer
  try {
    version = await engine.json<VersionAnswer>('GET', '/version', request)
    info = await engine.json<InfoAnswer>('GET', '/info', request)
  } catch (error) {
    signal?.throwIfAborted()
    throw engineProblem(error, address)
  }
  const os = info.OSType ?? version.Os ?? 'unknown'
  if (os !== 'linux') throw new AppError('engine_not_linux', { address: address.display, os })
  const platform = `linux/${goArchitecture(version.Arch ?? info.Architecture ?? 'unknown')}`
  if (platform !== 'linux/amd64' && platform !== 'linux/arm64')
    throw new AppError('engine_platform_unsupported', { address: address.display, platform })
  const options = (info.SecurityOptions ?? []).map((option) => option.split(',')[0])
  return {
    id: info.ID ?? '',
    version: version.Version ?? 'unknown',
    apiVersion: version.ApiVersion ?? 'unknown',
    platform,
    operatingSystem: info.OperatingSystem ?? 'unknown',
    cgroup: info.CgroupVersion === '2' ? 2 : 1,
    cpus: info.NCPU ?? 0,
    memoryBytes: info.MemTotal ?? 0,
    isRootless: options.includes('name=rootless'),
    hasUserns: options.includes('name=userns'),
    liveRestore: info.LiveRestoreEnabled ?? false,
    runtimes: Object.keys(info.Runtimes ?? {}),
    isLocal: address.kind === 'unix',
  }
}

interface VersionAnswer {
  Version?: string
  ApiVersion?: string
  Os?: string
  Arch?: string
}

interface InfoAnswer {
  ID?: string
  OSType?: string
  Architecture?: string
  OperatingSystem?: string
  CgroupVersion?: string
  NCPU?: number
  MemTotal?: number
  SecurityOptions?: string[]
  LiveRestoreEnabled?: boolean
  Runtimes?: Record<string, unknown>
}

/** Some engines say it as the kernel does. */
function goArchitecture(name: string): string {
  return { x86_64: 'amd64', aarch64: 'arm64' }[name] ?? name
}
