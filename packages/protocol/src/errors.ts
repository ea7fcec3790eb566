/**
 * The one registry of errors. Every error that a person or a program can meet has an entry here; `docs/errors.md` lists them all
 * (a test compares), the server answers them as RFC 7807 problems, the CLI prints them, a run's `status_message` carries their
 * platform code. Adding one: an entry here and a line in `docs/errors.md`.
 *
 * `message` says what happened and to which id, `remedy` what to do. `{name}` is replaced by the detail of that name; details must
 * never hold a secret.
 */

import type { ErrorSpec } from './error-spec.ts'
import { operatorErrors } from './operator-errors.ts'
import { requestErrors } from './request-errors.ts'
import { runErrors } from './run-errors.ts'

export const errorSpecs = { ...requestErrors, ...runErrors, ...operatorErrors } as const

export type ErrorCode = keyof typeof errorSpecs

export type ErrorDetails = Record<string, string | number | boolean | undefined>

/** An error from the registry. Its `message` is fit for people: what happened, to which id, what to do. */
export class AppError extends Error {
  readonly code: ErrorCode
  readonly details: ErrorDetails

  constructor(code: ErrorCode, details: ErrorDetails = {}, options: { cause?: unknown } = {}) {
    super(describeError(code, details), options)
    this.name = 'AppError'
    this.code = code
    this.details = details
  }

  get spec(): ErrorSpec {
    return errorSpecs[this.code]
  }
}

/** The sentence for people: message and remedy with the details filled in. */
export function describeError(code: ErrorCode, details: ErrorDetails = {}): string {
  const { message, remedy } = errorSpecs[code]
  return `${fill(message, details)} ${fill(remedy, details)}`
}

/** Of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function fill(template: string, details: ErrorDetails): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => String(details[name] ?? ''))
}
