import type { ErrorSpec } from './error-spec.ts'

/** What a worker of the docker backend and its operator meet, beside what the engine itself answers. Part of the registry in `errors.ts`. */
export const dockerOperatorErrors = {
  docker_context_invalid: {
    status: 400,
    platform: 'invalid_request',
    retryable: false,
    title: 'Invalid Docker context',
    message: 'The Docker context {context} cannot be used: {problem}.',
    remedy: '`docker context ls` shows what there is. DOCKER_HOST names an engine directly and goes first.',
  },
  container_runtime_missing: {
    status: 503,
    platform: 'resource_unavailable',
    retryable: false,
    title: 'No such container runtime',
    message: 'The engine has no runtime {runtime}. It has: {known}.',
    remedy: 'Make it known to the engine (`runtimes` in its daemon.json), or change `backend.docker.runtime`.',
  },
  network_missing: {
    status: 503,
    platform: 'resource_unavailable',
    retryable: false,
    title: 'No such network',
    message: 'The engine has no network {network}.',
    remedy: 'Make it (`docker network create {network}`), or change `backend.docker.network`.',
  },
  relay_unavailable: {
    status: 503,
    platform: 'operation_not_supported',
    retryable: false,
    title: 'Containers cannot reach the control plane',
    message:
      'Containers would have to reach the control plane at {url} through a socket of this worker, and that cannot be mounted into them: {problem}.',
    remedy:
      'Give the control plane an address that containers can reach (--public-url) and a network to reach it by (`backend.docker.network`), or run the worker on the engine’s own machine.',
  },
  host_path_not_allowed: {
    status: 400,
    platform: 'not_authorized',
    retryable: false,
    title: 'Folder may not be mounted',
    message: 'The folder {path} may not be mounted into containers. Allowed: {allowed}.',
    remedy: 'Add it to `backend.docker.allowed_host_paths`, or leave the volume out.',
  },
  volume_spec_invalid: {
    status: 400,
    platform: 'invalid_request',
    retryable: false,
    title: 'Invalid volume',
    message: 'The volume {spec} is not valid: {problem}.',
    remedy: 'It is written HOST:CONTAINER or HOST:CONTAINER:MODE, as `docker run -v` takes it.',
  },
  credential_helper_failed: {
    status: 422,
    platform: 'external_authentication_required',
    retryable: false,
    title: 'No login from the credential helper',
    message: 'The credential helper {helper} gave no login for {host}: {problem}.',
    remedy: 'Try it as the worker’s user (`echo {host} | {helper} get`), or log in anew with `docker login {host}`.',
  },
  kept_container_not_found: {
    status: 404,
    platform: 'resource_not_found',
    retryable: false,
    title: 'No such container',
    message: 'No container of run {runId} was kept on this machine’s engine.',
    remedy: 'Containers are kept by workers with --no-cleanup. `oz run attempts {runId}` names the worker that had it.',
  },
} as const satisfies Record<string, ErrorSpec>

/** What ends a run whose task was to be a container. */
export const dockerRunErrors = {
  sidecar_mount_invalid: {
    status: 422,
    platform: 'environment_setup_failed',
    retryable: false,
    title: 'Invalid place of a sidecar',
    message: 'The sidecar {image} cannot be mounted at {path}: {problem}.',
    remedy:
      'Choose an absolute path of its own, not /workspace, /agent or /run/openoz, nor one that another sidecar has.',
  },
  sidecar_unusable: {
    status: 422,
    platform: 'environment_setup_failed',
    retryable: false,
    title: 'Sidecar not usable',
    message: 'The files of the sidecar {image} could not be prepared: {problem}.',
    remedy: 'Look whether the image can be pulled and unpacked on the worker’s engine: `docker create {image}`.',
  },
  instance_shape_too_large: {
    status: 422,
    platform: 'resource_unavailable',
    retryable: false,
    title: 'More than the machine has',
    message: 'The run wants {wanted}, and the engine of worker {workerId} has {available}.',
    remedy: 'Ask for less (`instance_shape`), or send the run to a larger machine with `--host`.',
  },
  network_pool_exhausted: {
    status: 503,
    platform: 'resource_unavailable',
    retryable: true,
    title: 'No addresses left for a network',
    message: 'The engine has no addresses left for a network of the task’s own, nor has the worker in {pool}.',
    remedy:
      'Remove networks that nobody uses (`docker network prune`), give the engine more (`default-address-pools` in its daemon.json), or the worker with `backend.docker.network_pool`.',
  },
  engine_stopped: {
    status: 503,
    platform: 'resource_unavailable',
    retryable: true,
    title: 'Engine stopped',
    message: 'The engine was stopped while the task ran, and has ended its container.',
    remedy: 'With `live-restore` in the engine’s daemon.json containers go on while it is restarted.',
  },
  bind_source_missing: {
    status: 422,
    platform: 'environment_setup_failed',
    retryable: false,
    title: 'Folder of a volume is missing',
    message: 'The folder {path} of the volume {spec} does not exist on the engine’s machine.',
    remedy: 'Create it there, or correct --volumes of the worker.',
  },
} as const satisfies Record<string, ErrorSpec>
