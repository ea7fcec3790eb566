import { z } from 'zod'
import { timestamp } from './timestamps.ts'

/**
 * What a run made for people. A run's item lists them with what a list needs (`ArtifactItem`), `GET agent/artifacts/{uid}` answers one with its
 * content or with a link to it that is good for a short time (`ArtifactResponse`).
 */
export const artifactTypes = ['PLAN', 'PULL_REQUEST', 'SCREENSHOT', 'FILE', 'EXTERNAL_REFERENCE'] as const
export type ArtifactType = (typeof artifactTypes)[number]

const created_at = timestamp
const size_bytes = z.int().min(0)

const planItem = z
  .object({
    artifact_type: z.literal('PLAN'),
    created_at,
    data: z.object({
      document_uid: z.string(),
      artifact_uid: z.string().optional(),
      notebook_uid: z.string().optional(),
      title: z.string().optional(),
      url: z.string().optional(),
    }),
  })
  .meta({ id: 'PlanArtifact' })

const pullRequestItem = z
  .object({
    artifact_type: z.literal('PULL_REQUEST'),
    created_at,
    data: z.object({ url: z.string(), branch: z.string() }),
  })
  .meta({ id: 'PullRequestArtifact' })

const screenshotItem = z
  .object({
    artifact_type: z.literal('SCREENSHOT'),
    created_at,
    data: z.object({ artifact_uid: z.string(), mime_type: z.string(), description: z.string().optional() }),
  })
  .meta({ id: 'ScreenshotArtifact' })

const fileItem = z
  .object({
    artifact_type: z.literal('FILE'),
    created_at,
    data: z.object({
      artifact_uid: z.string(),
      filepath: z.string(),
      filename: z.string(),
      mime_type: z.string(),
      description: z.string().optional(),
      size_bytes: size_bytes.optional(),
      title: z.string().optional(),
    }),
  })
  .meta({ id: 'FileArtifact' })

const externalReferenceItem = z
  .object({
    artifact_type: z.literal('EXTERNAL_REFERENCE'),
    created_at,
    data: z.object({
      reference_type: z.string(),
      url: z.string(),
      title: z.string().optional(),
      metadata: z.record(z.string(), z.unknown()).optional(),
    }),
  })
  .meta({ id: 'ExternalReferenceArtifact' })

export const artifactItem = z
  .discriminatedUnion('artifact_type', [planItem, pullRequestItem, screenshotItem, fileItem, externalReferenceItem])
  .meta({ id: 'ArtifactItem' })
export type ArtifactItem = z.infer<typeof artifactItem>

const download = {
  download_url: z.string().describe('Needs no key, and is good until `expires_at`.'),
  expires_at: timestamp,
  content_type: z.string(),
  description: z.string().optional(),
}

const response = <T extends string, D extends z.ZodType>(type: T, data: D) =>
  z.object({ artifact_uid: z.string(), artifact_type: z.literal(type), created_at, data })

export const artifactResponse = z
  .discriminatedUnion('artifact_type', [
    response(
      'PLAN',
      z.object({
        document_uid: z.string(),
        notebook_uid: z.string(),
        url: z.string().optional(),
        title: z.string().optional(),
        content: z.string(),
        content_type: z.string(),
      }),
    ).meta({ id: 'PlanArtifactResponse' }),
    response('SCREENSHOT', z.object(download)).meta({ id: 'ScreenshotArtifactResponse' }),
    response(
      'FILE',
      z.object({
        ...download,
        filepath: z.string(),
        filename: z.string(),
        size_bytes: size_bytes.optional(),
        title: z.string().optional(),
      }),
    ).meta({ id: 'FileArtifactResponse' }),
  ])
  .meta({ id: 'ArtifactResponse' })
export type ArtifactResponse = z.infer<typeof artifactResponse>

/** Of `POST agent/artifacts`, whose body is the file's bytes. Exactly one of `run_id` and `conversation_id`. */
export const uploadArtifactQuery = z.strictObject({
  run_id: z.uuid().optional(),
  conversation_id: z.uuid().optional(),
  /** As it was called where it came from; the last part is its name. */
  filepath: z.string().min(1).max(4096),
  description: z.string().max(4096).optional(),
})
export type UploadArtifactQuery = z.infer<typeof uploadArtifactQuery>

export const uploadArtifactResponse = z
  .object({
    artifact_uid: z.string(),
    filepath: z.string(),
    mime_type: z.string(),
    description: z.string().optional(),
    size_bytes,
  })
  .meta({ id: 'UploadArtifactResponse' })
export type UploadArtifactResponse = z.infer<typeof uploadArtifactResponse>
