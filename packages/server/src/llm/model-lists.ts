import type { ModelInfo } from '@openoz/protocol'
import type { ModelCatalog } from './catalog.ts'
import { familyOfWire, type WireFamily } from './gateway-routes.ts'

/** The models that this family's path takes, under the names that it takes, as the family's clients expect a list. */
export async function listModels(catalog: ModelCatalog, family: WireFamily): Promise<unknown> {
  const models = (await catalog.list()).models.filter(({ id }) => {
    const wire = catalog.wireOf(id)
    return wire !== undefined && familyOfWire[wire] === family
  })
  switch (family) {
    case 'openai':
    case 'anthropic':
      return { object: 'list', data: models.map(toItem), has_more: false }
    case 'google':
      return {
        models: models.map(({ id, display_name, context_window }) => ({
          name: `models/${id}`,
          displayName: display_name,
          ...(context_window && { inputTokenLimit: context_window }),
          supportedGenerationMethods: ['generateContent', 'countTokens'],
        })),
      }
    case 'bedrock':
      return {
        modelSummaries: models.map(({ id, display_name, vision_supported }) => ({
          modelId: id,
          modelName: display_name,
          inputModalities: vision_supported ? ['TEXT', 'IMAGE'] : ['TEXT'],
          outputModalities: ['TEXT'],
          responseStreamingSupported: true,
          inferenceTypesSupported: ['ON_DEMAND'],
        })),
      }
    default:
      return family satisfies never
  }
}

/** OpenAI's and Anthropic's clients each read their half. */
function toItem({ id, display_name }: ModelInfo) {
  return { id, object: 'model', created: 0, owned_by: id.split('/', 1)[0], type: 'model', display_name }
}
