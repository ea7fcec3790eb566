import { isIP, isIPv4 } from 'node:net'
import { resolve } from 'node:path'
import { z } from 'zod'
import { environmentEntry, text } from './config-entries.ts'
import type { PullPolicy } from './engine/image-pull.ts'
import { normalPath, parseVolume, type TaskVolume } from './task-volume.ts'

const pullPolicies = ['Always', 'IfNotPresent', 'Never'] as const satisfies readonly PullPolicy[]

const image = text.regex(/^\S+$/, 'must not contain whitespace').max(512)
const absolutePath = z.string().regex(/^\//, 'must be an absolute path')

/** The block `backend.docker` of the worker's config file. */
export const dockerBlock = z.strictObject({
  volumes: z.array(text).optional(),
  environment: z.array(environmentEntry).optional(),
  image_pull_policy: z.enum(pullPolicies).optional(),
  sidecar_image: image.optional(),
  default_image: image.optional(),
  network: z
    .string()
    .regex(/^[A-Za-z0-9][\w.-]*$/, 'must be none, isolated, or the name of a network')
    .optional(),
  network_pool: z.string().refine(isPool, 'must be a range of IPv4 addresses such as 10.213.0.0/16').optional(),
  security: z.enum(['default', 'strict']).optional(),
  read_only_root: z.boolean().optional(),
  runtime: text.regex(/^\S+$/, 'must not contain whitespace').optional(),
  userns: z.enum(['', 'host']).optional(),
  pids_limit: z.int().min(0, 'must be 0 (no limit) or more').optional(),
  dns: z.array(z.string().refine((address) => isIP(address) !== 0, 'must be an IP address')).optional(),
  allowed_host_paths: z.array(absolutePath).optional(),
  state_dir: text.optional(),
  bundle: text.optional(),
})
export type DockerBlock = z.infer<typeof dockerBlock>

/** Between what a few tasks need and what nobody can mean. */
function isPool(range: string): boolean {
  const [address = '', bits = ''] = range.split('/')
  return isIPv4(address) && /^\d\d?$/.test(bits) && Number(bits) >= 8 && Number(bits) <= 28
}

/** What tasks of the docker backend are given, with its defaults. Which engine runs them is no option: see `DOCKER_HOST` and contexts. */
export interface DockerOptions {
  /** Of the operator, for every task: the config file's, then the command line's. */
  volumes: TaskVolume[]
  /** undefined: `IfNotPresent`, and `Always` for what names no tag, or `latest`; what is there counts when the registry cannot be asked. */
  imagePullPolicy?: PullPolicy
  /** The reference's agent in an image, instead of the one that comes with openoz. */
  sidecarImage?: string
  /** Of runs that name none. Default: undefined, and the backend's own choice. */
  defaultImage?: string
  /** `none`, `isolated` (one of the task's own), or the name of a network of the engine. Default: `isolated`. */
  network: string
  /** Where networks of tasks are made once the engine has no addresses left. Default: 10.213.0.0/16. */
  networkPool: string
  /** `strict` drops every capability. Default: `default`, which keeps those that package managers need. */
  security: 'default' | 'strict'
  /** Default: false. */
  readOnlyRoot: boolean
  /** `runsc`, `kata`, …: known to the engine. Default: the engine's. */
  runtime?: string
  /** `host`: without the engine's user namespaces. Default: the engine's. */
  userns?: 'host'
  /** Processes and threads of one task; 0: no limit. Default: 4096. */
  pidsLimit: number
  /** Name servers. Default: the engine's. */
  dns: string[]
  /** Folders that `volumes` may mount, with what lies in them. undefined: all; empty: none. */
  allowedHostPaths?: string[]
  /** As of the direct backend: where the worker keeps its control folders. */
  stateDir?: string
  /** Folder of the agent bundle. Default: beside this program. */
  bundle?: string
}

/** Throws `volume_spec_invalid`. */
export function readDockerOptions(block: DockerBlock, flags: { volumes?: string[] }): DockerOptions {
  return {
    volumes: [...(block.volumes ?? []), ...(flags.volumes ?? [])].map(parseVolume),
    imagePullPolicy: block.image_pull_policy,
    sidecarImage: block.sidecar_image,
    defaultImage: block.default_image,
    network: block.network ?? 'isolated',
    networkPool: block.network_pool ?? '10.213.0.0/16',
    security: block.security ?? 'default',
    readOnlyRoot: block.read_only_root ?? false,
    runtime: block.runtime,
    userns: block.userns === 'host' ? 'host' : undefined,
    pidsLimit: block.pids_limit ?? 4096,
    dns: block.dns ?? [],
    allowedHostPaths: block.allowed_host_paths?.map(normalPath),
    stateDir: block.state_dir === undefined ? undefined : resolve(block.state_dir),
    bundle: block.bundle === undefined ? undefined : resolve(block.bundle),
  }
}
