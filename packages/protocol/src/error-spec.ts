/** The closed list that the published SDKs know: `status_message.error_code` and a problem's `error` are one of these. */
export const platformErrorCodes = [
  'insufficient_credits',
  'feature_not_available',
  'external_authentication_required',
  'not_authorized',
  'invalid_request',
  'resource_not_found',
  'budget_exceeded',
  'integration_disabled',
  'integration_not_configured',
  'operation_not_supported',
  'environment_setup_failed',
  'content_policy_violation',
  'conflict',
  'authentication_required',
  'resource_unavailable',
  'internal_error',
] as const
export type PlatformErrorCode = (typeof platformErrorCodes)[number]

export interface ErrorSpec {
  /** HTTP status when the error is an answer. Errors that never cross HTTP carry the status that fits best. */
  status: 400 | 401 | 403 | 404 | 409 | 410 | 413 | 415 | 422 | 426 | 429 | 500 | 502 | 503 | 504
  platform: PlatformErrorCode
  /** Whether the same request may succeed later. Sent as `retryable` and, to the SDKs, as `x-should-retry`. */
  retryable: boolean
  title: string
  message: string
  remedy: string
}
