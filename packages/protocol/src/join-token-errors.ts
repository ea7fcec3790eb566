import type { ErrorSpec } from './error-spec.ts'

/** What a machine meets that becomes a worker, or ends to be one. Part of the registry in `errors.ts`. */
export const joinTokenErrors = {
  join_token_invalid: {
    status: 401,
    platform: 'authentication_required',
    retryable: false,
    title: 'Unknown join token',
    message: 'No join token matches the one that was sent.',
    remedy: 'Ask an administrator of the control plane for a new one.',
  },
  join_token_used: {
    status: 410,
    platform: 'conflict',
    retryable: false,
    title: 'Join token was used',
    message: 'The join token was used at {usedAt}; each is good for one machine.',
    remedy: 'Ask an administrator of the control plane for a new one.',
  },
  join_token_expired: {
    status: 410,
    platform: 'authentication_required',
    retryable: false,
    title: 'Join token is over',
    message: 'The join token was good until {expiresAt}.',
    remedy: 'Ask an administrator of the control plane for a new one.',
  },
  join_token_other_worker: {
    status: 409,
    platform: 'conflict',
    retryable: false,
    title: 'Join token of another worker',
    message: 'The join token was made for worker {allowed} only, not for {workerId}.',
    remedy: 'Join without a worker id, or ask for a token for {workerId}.',
  },
  worker_id_taken: {
    status: 409,
    platform: 'conflict',
    retryable: false,
    title: 'Worker id in use',
    message: 'There is a key for worker {workerId} already; a join token for any worker does not make a second one.',
    remedy:
      'Choose another name with --worker-id, or ask an administrator for a token for it: `oz worker join-token --worker-id {workerId}`.',
  },
  public_address_unknown: {
    status: 503,
    platform: 'operation_not_supported',
    retryable: false,
    title: 'Address not known',
    message: 'The control plane was asked through a proxy and cannot tell at which address.',
    remedy: 'Set its --public-url (OZ_PUBLIC_URL) to the address that machines reach it by.',
  },
  installation_busy: {
    status: 409,
    platform: 'conflict',
    retryable: true,
    title: 'Installation under way',
    message: 'Process {pid} is setting up or removing the worker of this machine.',
    remedy: 'Try again when it has ended.',
  },
  installation_interrupted: {
    status: 503,
    platform: 'resource_unavailable',
    retryable: true,
    title: 'Installation stopped',
    message: 'Stopped by a signal, and what was begun is undone. {token}',
    remedy: 'Start it again.',
  },
  worker_out_of_reach: {
    status: 503,
    platform: 'resource_unavailable',
    retryable: true,
    title: 'Worker cannot be stopped',
    message: 'Worker {workerId} runs, and could not be stopped: {problem}. Nothing was removed.',
    remedy:
      'For a service of a user do it in a session of that user, or with XDG_RUNTIME_DIR set to its folder in /run/user.',
  },
} as const satisfies Record<string, ErrorSpec>
