import { z } from 'zod'

/** A repository of GitHub, as the reference names it. */
const gitHubRepo = z.strictObject({ owner: z.string().min(1), repo: z.string().min(1) })

/** A repository of any git host: `https://…`, `ssh://…`, `git@host:path`, `file:///…` or `owner/repo` (GitHub). */
const sourceRepo = z.strictObject({
  url: z.string().min(1).max(2048),
  /** Branch, tag or commit. Default: the remote's HEAD. */
  ref: z.string().min(1).max(255).optional(),
  /** Folder inside the workspace. Default: the last part of the URL without `.git`. */
  dir: z
    .string()
    .min(1)
    .max(255)
    .regex(/^(?!.*(^|\/)\.\.?(\/|$))[^/\0][^\0]*$/, 'must be a relative path inside the workspace')
    .optional(),
})
export type SourceRepo = z.infer<typeof sourceRepo>

/** What a run's workspace consists of. One without image or repositories is valid: an empty folder. */
export const cloudEnvironmentConfig = z
  .strictObject({
    name: z.string().max(255).optional(),
    description: z.string().max(240, 'may have at most 240 characters').nullish(),
    /** Image of the task's container. Does not apply on the direct backend, which says so in the run's log. */
    docker_image: z.string().min(1).max(512).optional(),
    github_repos: z.array(gitHubRepo).max(50).optional(),
    source_repos: z.array(sourceRepo).max(50).optional(),
    /** Shell commands, run in order in the workspace before the agent starts. The first that fails ends the run. */
    setup_commands: z.array(z.string().min(1).max(65_536)).max(100).optional(),
    /** Environment variables of setup commands and tools. No place for secrets: whoever sees the run sees them. */
    variables: z
      .record(
        z
          .string()
          .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'is no name of a variable')
          .max(128),
        z.string().max(32_768),
      )
      .refine((variables) => Object.keys(variables).length <= 100, 'takes at most 100 variables')
      .optional(),
  })
  .meta({ id: 'CloudEnvironmentConfig' })
export type CloudEnvironmentConfig = z.infer<typeof cloudEnvironmentConfig>

/** What a task's container gets: a share of CPU time, and memory after which the kernel ends it. */
export const instanceShape = z
  .strictObject({
    /** CPUs; 0.5 is half of one. */
    vcpus: z.number().positive().max(1024),
    /** GiB. */
    memory_gb: z.number().positive().max(65_536),
  })
  .meta({ id: 'InstanceShape' })

/** An image whose files are mounted into a task's container. */
export const taskSidecar = z
  .strictObject({
    image: z.string().min(1).max(512),
    mount_path: z.string().min(1).max(1024),
    /** Default: the task can only read it. */
    read_write: z.boolean().optional(),
  })
  .meta({ id: 'TaskSidecar' })

/** Keys of the reference's config that its SDKs know and nothing here could act on: refused by name (422). */
export const unsupportedConfigKeys = [
  'skill_spec',
  'mcp_servers',
  'harness_auth_secrets',
  'runner_id',
  'credential_strategy',
  'inference_providers',
  'memory_stores',
  'session_sharing',
  'skills',
  'computer_use_model_id',
] as const
export const notSupported = z.unknown().optional().describe('Not supported by this server: answered with 422.')

/** How a run is to be done. Unknown keys are refused by name. */
export const ambientAgentConfig = z
  .strictObject({
    /** Groups runs in lists and filters. */
    name: z.string().max(255).optional(),
    /** `provider/model`, or a bare `model` that only one provider has. Default: the server's first usable model. */
    model_id: z.string().min(1).max(255).optional(),
    /** Put before the agent's own instructions. */
    base_prompt: z.string().max(262_144).optional(),
    environment_id: z.string().min(1).max(255).optional(),
    /** The same config that an environment holds, inline. Not together with `environment_id`. */
    environment: cloudEnvironmentConfig.optional(),
    /** Id of the worker that shall run it, exact and case-sensitive. Default: any worker of the team. */
    worker_host: z.string().max(255).optional(),
    /** Minutes that the agent waits for a follow-up after its turn. Default 10 for managed runs; 0 ends at once. */
    idle_timeout_minutes: z.int().min(0).max(1_000_000).optional(),
    computer_use_enabled: z.boolean().optional(),
    /** CPUs and memory of the task's container. Default: as the worker's machine has them. Does not apply on the direct backend. */
    instance_shape: instanceShape.optional(),
    /** Images whose files the task's container gets beside its own. Does not apply on the direct backend. */
    additional_sidecars: z.array(taskSidecar).max(10).optional(),
    skill_spec: z.string().min(1).max(1024).optional(),
    mcp_servers: z.record(z.string(), z.unknown()).optional(),
    harness: z
      .strictObject({
        type: z.string().min(1).max(64).optional(),
        model_id: z.string().max(255).optional(),
        reasoning_level: z.string().max(64).optional(),
      })
      .optional(),
    harness_auth_secrets: z.record(z.string(), z.string()).optional(),
    runner_id: notSupported,
    credential_strategy: notSupported,
    inference_providers: notSupported,
    memory_stores: notSupported,
    session_sharing: notSupported,
    skills: notSupported,
    computer_use_model_id: notSupported,
  })
  .meta({ id: 'AmbientAgentConfig' })
export type AmbientAgentConfig = z.infer<typeof ambientAgentConfig>
