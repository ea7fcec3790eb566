import { z } from 'zod'

export const modelInfo = z
  .object({
    /** `provider/model` */
    id: z.string(),
    display_name: z.string(),
    provider: z.enum(['OPENAI', 'ANTHROPIC', 'GOOGLE', 'UNKNOWN']),
    vision_supported: z.boolean(),
    context_window: z.int().optional(),
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
    /** Every provider that this server knows how to reach, whether its models can be used, and if not, what is missing. */
    providers: z.array(
      z.object({ name: z.string(), usable: z.boolean(), models: z.int(), reason: z.string().optional() }),
    ),
  })
  .meta({ id: 'ListModelsResponse' })
export type ListModelsResponse = z.infer<typeof listModelsResponse>
