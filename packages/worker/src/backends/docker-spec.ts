import { realpathSync } from 'node:fs'
import { posix } from 'node:path'
import { agentFolder } from '@openoz/protocol'
import type { DockerOptions } from '../docker-options.ts'
import type { ContainerHostConfig, ContainerMount, ContainerSpec } from '../engine/containers.ts'
import type { ImageConfig } from '../engine/images.ts'
import type { TaskVolume } from '../task-volume.ts'
import type { ContainerLimits } from './docker-shape.ts'

/**
 * The container of a task, as the engine is asked for it: pure, so that everything that keeps a task within its bounds can be read (and tested) in one
 * place. docs/security.md gives the reason of each setting.
 */

/** Where things are in the container. */
export const workspaceFolder = '/workspace'
export const controlFolder = '/run/openoz'
export const relayFolder = '/run/openoz-server'

export interface SpecInput {
  /** By its id: its name may mean another image by now. */
  image: { id: string; config: ImageConfig }
  command: string[]
  environment: Record<string, string>
  labels: Record<string, string>
  options: DockerOptions
  /** Name of the network, or `none`. */
  network: string
  volumes: TaskVolumes
  /** Of this machine, or of the engine's: it holds the socket to the control plane, and nothing else. */
  relay: string | undefined
  limits: ContainerLimits | undefined
}

/** Names of volumes. */
export interface TaskVolumes {
  agent: string
  control: string
  workspace: string
  sidecars: { volume: string; path: string; isWritable: boolean }[]
  /** For folders that the image declares as volumes: without one of ours each would get one without labels, which survives the task. */
  ofImage: { volume: string; path: string }[]
  /** By volume. One that has gone since it was made the engine makes anew: with these it is known whose it is. */
  labels?: Record<string, Record<string, string>>
}

/**
 * What a build needs of root's powers. Nothing of it reaches beyond the container: without `no-new-privileges` gone, raw sockets, mounts, or devices.
 * apt and dpkg give files away and write where they do not own (CHOWN, DAC_OVERRIDE, FOWNER, FSETID), and drop to users of their own (SETUID, SETGID);
 * the guard of the lease ends what others run (KILL); servers under test listen on low ports (NET_BIND_SERVICE).
 */
const keptCapabilities = ['CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'FSETID', 'KILL', 'NET_BIND_SERVICE', 'SETGID', 'SETUID']

export function containerSpec(input: SpecInput): ContainerSpec {
  const { image, command, environment, labels, options } = input
  return {
    Image: image.id,
    Entrypoint: [],
    Cmd: command,
    Env: Object.entries(environment).map(([name, value]) => `${name}=${value}`),
    WorkingDir: workspaceFolder,
    // Else the image's, which may name one: as it is.
    ...(image.config.User ? { User: image.config.User } : {}),
    Tty: false,
    OpenStdin: false,
    AttachStdin: false,
    AttachStdout: false,
    AttachStderr: false,
    // A check of the image's own server, which does not run.
    Healthcheck: { Test: ['NONE'] },
    StopSignal: 'SIGTERM',
    Labels: labels,
    HostConfig: {
      ...bounds(options, input.limits),
      NetworkMode: input.network,
      ...(options.dns.length > 0 && input.network !== 'none' ? { Dns: options.dns } : {}),
      Binds: options.volumes.filter((volume) => !isPlainBind(volume)).map(bindOf),
      Mounts: mountsOf(input),
      LogConfig: { Type: 'json-file', Config: { 'max-size': '10m', 'max-file': '1' } },
      RestartPolicy: { Name: 'no' },
      AutoRemove: false,
    },
  }
}

function bounds(options: DockerOptions, limits: ContainerLimits | undefined): ContainerHostConfig {
  const { security, pidsLimit, readOnlyRoot, runtime, userns } = options
  return {
    // Ends what is left when the agent has ended, and buries what nobody waits for.
    Init: true,
    SecurityOpt: ['no-new-privileges'],
    CapDrop: ['ALL'],
    CapAdd: security === 'strict' ? [] : keptCapabilities,
    ...(pidsLimit > 0 ? { PidsLimit: pidsLimit } : {}),
    ReadonlyRootfs: readOnlyRoot,
    ...(readOnlyRoot ? { Tmpfs: temporaryFolders } : {}),
    ...(runtime === undefined ? {} : { Runtime: runtime }),
    ...(userns === undefined ? {} : { UsernsMode: userns }),
    ...(limits && { NanoCpus: limits.nanoCpus, Memory: limits.memoryBytes, MemorySwap: limits.memoryBytes }),
  }
}

/** Programs expect to be able to write there, and to run what they put there. */
const temporaryFolders = {
  '/tmp': 'rw,exec,nosuid,nodev,mode=1777',
  '/var/tmp': 'rw,exec,nosuid,nodev,mode=1777',
  '/run': 'rw,exec,nosuid,nodev,mode=755',
}

function mountsOf({ volumes, relay, options }: SpecInput): ContainerMount[] {
  const { agent, control, workspace, sidecars, ofImage, labels = {} } = volumes
  const volume = (Source: string, Target: string, more: Partial<ContainerMount> = {}): ContainerMount => ({
    Type: 'volume',
    Source,
    Target,
    ...more,
  })
  const fixed = { VolumeOptions: { NoCopy: true } }
  const labelled = (name: string) => ({
    VolumeOptions: { NoCopy: true, ...(labels[name] === undefined ? {} : { Labels: labels[name] }) },
  })
  const mounts = [
    volume(agent, agentFolder, { ReadOnly: true, ...labelled(agent) }),
    volume(control, controlFolder, fixed),
    // With what the image has there.
    volume(workspace, workspaceFolder),
    ...sidecars.map((sidecar) =>
      volume(sidecar.volume, sidecar.path, {
        ...(sidecar.isWritable ? {} : { ReadOnly: true }),
        ...labelled(sidecar.volume),
      }),
    ),
    ...ofImage.map(({ volume: name, path }) => volume(name, path)),
    ...options.volumes.filter(isPlainBind).map(plainBind),
  ]
  // The folder, not the socket: a worker that is started again listens anew, under the same name. Read-only: connecting works, and
  // what the worker does to its socket there cannot be led elsewhere by a link.
  if (relay !== undefined) mounts.push({ Type: 'bind', Source: relay, Target: relayFolder, ReadOnly: true })
  return mounts
}

/** `Binds` make a folder that is missing on the engine's machine, owned by root; so it is `Mounts` for all that these can say. */
function isPlainBind({ isPath, mode }: TaskVolume): boolean {
  return isPath && (mode ?? '').split(',').every((word) => !['z', 'Z', 'nocopy'].includes(word))
}

function plainBind({ source, target, mode }: TaskVolume): ContainerMount {
  const words = (mode ?? '').split(',')
  const Propagation = words.find((word) => /private|shared|slave/.test(word))
  return {
    Type: 'bind',
    Source: source,
    Target: target,
    ...(words.includes('ro') ? { ReadOnly: true } : {}),
    ...(Propagation === undefined ? {} : { BindOptions: { Propagation } }),
  }
}

function bindOf({ source, target, mode }: TaskVolume): string {
  return [source, target, ...(mode === undefined ? [] : [mode])].join(':')
}

/** What of the image's volumes needs one of ours: those at places that nothing else is mounted at. */
export function imageVolumePaths({ Volumes }: ImageConfig, taken: readonly string[]): string[] {
  const paths = Object.keys(Volumes ?? {}).map((path) => (path === '/' ? path : path.replace(/\/+$/, '')))
  return [...new Set(paths)].filter((path) => path.startsWith('/') && path !== '/' && !taken.includes(path)).sort()
}

/** What gets in by `-v` that gives the task the engine, and with it the machine: its socket, or a folder that has it. `socket`: ours, where it is a file. */
export function mountsEngineSocket(
  { volumes }: Pick<DockerOptions, 'volumes'>,
  socket: string | undefined,
): TaskVolume | undefined {
  const sockets = [...engineSockets, ...(socket === undefined ? [] : [socket])]
  return volumes.find(
    ({ isPath, source }) => isPath && realPaths(source).some((path) => isSocketIn(path, sockets.flatMap(realPaths))),
  )
}

/** Those of engines and of what runs containers for them, where they usually are; `/run` may be named `/var/run`. */
const engineSockets = [
  'docker.sock',
  'docker/containerd/containerd.sock',
  'containerd/containerd.sock',
  'podman/podman.sock',
].flatMap((name) => [`/run/${name}`, `/var/run/${name}`])

function isSocketIn(source: string, sockets: readonly string[]): boolean {
  if (/\/(docker|containerd|podman)\.sock$/.test(source)) return true
  // Of engines that users run for themselves.
  if (/^(\/var)?\/run\/user(\/\d+(\/podman)?)?$/.test(source)) return true
  return sockets.some((path) => path === source || path.startsWith(source === '/' ? '/' : `${source}/`))
}

/** As it is written, and what it leads to here. On an engine of another machine that means nothing, and harms nothing. */
function realPaths(path: string): string[] {
  const plain = posix.normalize(path).replace(/(?<=.)\/+$/, '')
  try {
    return [plain, realpathSync(plain)]
  } catch {
    return [plain]
  }
}
