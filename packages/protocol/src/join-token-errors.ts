import type { ErrorSpec } from './error-spec.ts'

/** What a machine meets that wants to become a worker. Part of the registry in `errors.ts`. */
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
} as const satisfies Record<string, ErrorSpec>
