import { z } from 'zod'

export const modelInfo = z
  .object({
    /** `provider/model` */
    id: z.string(),
    display_name: z.string(),
    provider: z.enum(['OPENAI', 'ANTHROPIC', 'GOOGLE', 'UNKNOWN']),
    vision_supported: z.boolean(),
  })
  .meta({ id: 'ModelInfo' })
export type ModelInfo = z.infer<typeof modelInfo>

export const listModelsResponse = z
  .object({
    /** Empty when no provider is configured. */
    default_model_id: z.string(),
    models: z.array(modelInfo),
    /** Providers that are configured but do not answer, and why. */
    problems: z.array(z.object({ provider: z.string(), problem: z.string() })),
  })
  .meta({ id: 'ListModelsResponse' })
export type ListModelsResponse = z.infer<typeof listModelsResponse>
