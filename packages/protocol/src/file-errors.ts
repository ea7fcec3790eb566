import type { ErrorSpec } from './error-spec.ts'

/** Of artifacts, attachments and the links to them. Part of the registry in `errors.ts`, among the refusals of a request. */
export const fileErrors = {
  artifact_not_found: {
    status: 404,
    platform: 'resource_not_found',
    retryable: false,
    title: 'No such artifact',
    message: 'No artifact that you may see has the id {artifactUid}.',
    remedy: '`oz run get RUN` lists the artifacts of a run.',
  },
  link_invalid: {
    status: 403,
    platform: 'not_authorized',
    retryable: false,
    title: 'Link not valid',
    message: 'This link has expired, or was changed.',
    remedy: 'Ask for a fresh one where this one came from.',
  },
  attachment_invalid: {
    status: 400,
    platform: 'invalid_request',
    retryable: false,
    title: 'Attachment not readable',
    message: 'Attachment {name}: {problem}',
    remedy: 'Send the bytes of the file as base64 in `data`, and its name without folders in `file_name`.',
  },
  attachment_too_large: {
    status: 413,
    platform: 'invalid_request',
    retryable: false,
    title: 'Attachment too large',
    message: 'Attachment {name} has {bytes} bytes; at most {maxBytes} are taken.',
    remedy: 'Put large material into the repository, or where the agent can fetch it.',
  },
  attachment_not_found: {
    status: 404,
    platform: 'resource_not_found',
    retryable: false,
    title: 'No such attachment',
    message: 'Run {runId} has no attachment {attachmentId}.',
    remedy: 'List the attachments by their ids from `attachments/prepare`.',
  },
  attachment_uploaded: {
    status: 409,
    platform: 'conflict',
    retryable: false,
    title: 'Attachment uploaded before',
    message: 'The bytes of attachment {name} of run {runId} are there already, and its agent may have them: they stay.',
    remedy: 'Name another attachment with `attachments/prepare`.',
  },
} as const satisfies Record<string, ErrorSpec>
