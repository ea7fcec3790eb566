import type { ErrorSpec } from './error-spec.ts'

/** What keeps a worker from its Docker engine. Part of the registry in `errors.ts`, among what operators meet. */
export const engineErrors = {
  engine_unreachable: {
    status: 503,
    platform: 'resource_unavailable',
    retryable: true,
    title: 'Docker engine unreachable',
    message: 'The Docker engine at {address} ({source}) cannot be reached: {problem}.',
    remedy:
      'Is Docker running? `docker info`, as the same user, has to work. DOCKER_HOST names another engine; `--backend direct` needs none.',
  },
  engine_permission: {
    status: 503,
    platform: 'not_authorized',
    retryable: false,
    title: 'Docker engine not permitted',
    message: 'User {user} may not use the Docker engine at {address} ({source}).',
    remedy:
      'Add the user to the group of the socket (`usermod -aG docker {user}`, then log in anew; that group is as good as root), or use a rootless engine. `--backend direct` needs none.',
  },
  engine_not_linux: {
    status: 503,
    platform: 'operation_not_supported',
    retryable: false,
    title: 'Engine without Linux containers',
    message: 'The Docker engine at {address} runs containers of {os}; agents need Linux.',
    remedy: 'Switch it to Linux containers, or name another engine with DOCKER_HOST.',
  },
  engine_platform_unsupported: {
    status: 503,
    platform: 'operation_not_supported',
    retryable: false,
    title: 'Engine of another CPU',
    message: 'The Docker engine at {address} runs on {platform}; agents run on linux/amd64 and linux/arm64.',
    remedy: 'Name an engine on such a machine with DOCKER_HOST.',
  },
  engine_api_unsupported: {
    status: 503,
    platform: 'operation_not_supported',
    retryable: false,
    title: 'API of the engine not supported',
    message: 'The Docker engine at {address} speaks API {offered}; this worker needs {wanted}.',
    remedy: 'Docker Engine 20.10 is the oldest that fits. Unset DOCKER_API_VERSION if it is set.',
  },
  engine_failed: {
    status: 503,
    platform: 'resource_unavailable',
    retryable: true,
    title: 'Docker engine failed',
    message: 'The Docker engine at {address} answered {status} to {request}: {problem}.',
    remedy: 'The engine’s own log says more (`journalctl -u docker`).',
  },
  engine_disk_full: {
    status: 503,
    platform: 'resource_unavailable',
    retryable: true,
    title: 'Disk of the Docker engine full',
    message: 'The disk of the Docker engine at {address} is full: {problem}.',
    remedy:
      'Make room on its machine: `docker system df` shows what is there, `docker image prune` removes unused images.',
  },
  docker_config_unreadable: {
    status: 400,
    platform: 'invalid_request',
    retryable: false,
    title: 'Docker’s configuration not readable',
    message: 'Docker’s configuration {file} cannot be used: {problem}.',
    remedy: 'Correct the file, make it readable for the worker’s user, or name another folder with DOCKER_CONFIG.',
  },
} as const satisfies Record<string, ErrorSpec>

/** Why there is no image for a run's container. Part of the registry in `errors.ts`, among what ends runs. */
export const imageErrors = {
  image_reference_invalid: {
    status: 422,
    platform: 'environment_setup_failed',
    retryable: false,
    title: 'Invalid name of an image',
    message: '{image} is not the name of an image: {problem}.',
    remedy: 'It is written as for `docker pull`: NAME, NAME:TAG, HOST/NAME:TAG or NAME@sha256:DIGEST.',
  },
  image_not_found: {
    status: 422,
    platform: 'environment_setup_failed',
    retryable: false,
    title: 'No such image',
    message: 'There is no image {image} at {host}: {problem}.',
    remedy: 'Check its name and its tag: `docker pull {image}` on the worker’s machine has to work.',
  },
  image_login_required: {
    status: 422,
    platform: 'environment_setup_failed',
    retryable: false,
    title: 'No login for the registry',
    message: 'The registry {host} does not give the image {image} {login}: {problem}.',
    remedy:
      '`docker login {host}` as the worker’s user, on its machine; then `docker pull {image}` has to work. Registries also answer so for images that do not exist.',
  },
  image_registry_unreachable: {
    status: 422,
    platform: 'environment_setup_failed',
    retryable: true,
    title: 'Registry not reachable',
    message: 'The registry {host} of the image {image} cannot be reached by the engine: {problem}.',
    remedy:
      'Try `docker pull {image}` on the worker’s machine. The engine needs a way to it: a name server, a route, a proxy of its own.',
  },
  image_corrupt: {
    status: 422,
    platform: 'environment_setup_failed',
    retryable: false,
    title: 'Image damaged',
    message: 'The image {image} arrived damaged from {host}: {problem}.',
    remedy: 'Push it again; a proxy or a mirror between the engine and the registry may also be what damages it.',
  },
  image_disk_full: {
    status: 422,
    platform: 'resource_unavailable',
    retryable: true,
    title: 'No room for the image',
    message: 'The disk of the engine is full; the image {image} does not fit: {problem}.',
    remedy: 'Make room on the engine’s machine (`docker system df`, `docker image prune`), or use a smaller image.',
  },
  image_pull_failed: {
    status: 422,
    platform: 'environment_setup_failed',
    retryable: false,
    title: 'Image not pulled',
    message: 'The image {image} could not be pulled from {host}: {problem}.',
    remedy: 'Try `docker pull {image}` on the worker’s machine.',
  },
  image_not_present: {
    status: 422,
    platform: 'environment_setup_failed',
    retryable: false,
    title: 'Image not on the engine',
    message: 'The image {image} is not on the engine, and this worker pulls none (`image_pull_policy: Never`).',
    remedy: '`docker pull {image}` there, or let the worker pull: `image_pull_policy: IfNotPresent`.',
  },
  image_wrong_platform: {
    status: 422,
    platform: 'environment_setup_failed',
    retryable: false,
    title: 'Image for another CPU',
    message: 'The image {image} is for {imagePlatform}, and the engine runs {enginePlatform}.',
    remedy:
      'Build it for {enginePlatform} as well (`docker buildx build --platform`), or send the run to a worker of the other kind with `--host`.',
  },
} as const satisfies Record<string, ErrorSpec>
