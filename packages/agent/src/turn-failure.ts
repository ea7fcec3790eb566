import { isDiskFull } from '@openoz/machine'
import { AppError, type ErrorCode } from '@openoz/protocol'
import type { TurnResult } from './harnesses/harness.ts'
import { shortened } from './live-output.ts'

/**
 * Failures that are ours or the platform's: the run ends as ERROR. Every other code of the registry that reaches a turn is something that the
 * user can change (FAILED).
 */
const ours: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'attachment_unavailable',
  'database_unreachable',
  'disk_full',
  'internal_error',
  'model_overloaded',
  'model_provider_failed',
  'model_provider_unreachable',
  'process_not_ended',
  'server_answer_unreadable',
  'server_draining',
  'server_starting',
  'server_unreachable',
  'spool_full',
  'spool_in_use',
  'workspace_download_failed',
])

/** The outcome that an error stands for. Its message is fit for people; unknown errors only say that there was one. */
export function turnFailure(error: unknown): TurnResult {
  if (error instanceof AppError) {
    return { outcome: ours.has(error.code) ? 'ERROR' : 'FAILED', message: error.message, errorCode: error.code }
  }
  if (isDiskFull(error)) {
    const { path: folder = 'the workspace' } = error
    return turnFailure(new AppError('disk_full', { what: 'the run', folder, free: 'nothing' }))
  }
  const detail = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  return {
    outcome: 'ERROR',
    message: `The agent met an error of its own: ${shortened(detail, 500)}`,
    errorCode: 'internal_error',
  }
}
