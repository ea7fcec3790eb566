/**
 * What models there are, asked of the providers themselves.
 *
 * Each provider's list is in one of three states: *unknown* (never asked, or the last try failed), *listed* (which includes the empty
 * list of a server that does not say what it has), *stale* (listed, older than a minute). Unknown lists are waited for; stale ones are
 * used while a new one is fetched, so that no model call waits for a list. A provider is asked once at a time, however many want to know.
 *
 * A model that a list does not have is refused before the provider is troubled with it, after a second look at the list: it may have been
 * installed a moment ago. Where there is no list, the user's word counts.
 */

import { AppError, type ListModelsResponse, type ModelAccess, type ModelWire } from '@openoz/protocol'
import type { Logger } from 'pino'
import { type ProviderConnections, ProviderUnreachable } from './connections.ts'
import { preferredModel } from './default-model.ts'
import { findKnownModel } from './known-models.ts'
import type { ModelProvider } from './model-provider.ts'
import { fetchModels, type ListedModel } from './provider-models.ts'
import type { FoundProviders } from './providers.ts'

export interface ModelCatalog {
  /** Never rejects: a provider that does not answer is one of `problems`. */
  list(): Promise<ListModelsResponse>
  /**
   * `provider/model`, or a bare model when only one provider has it, or nothing for the default. Rejects with `model_provider_missing`,
   * `model_unknown`, `model_ambiguous`, `model_default_missing`. `preferred` decides between providers of which several may be meant.
   */
  resolve(modelId: string | undefined, preferred?: (provider: ModelProvider) => boolean): Promise<ResolvedModel>
  /** Of a listed model's id. */
  wireOf(modelId: string): ModelWire | undefined
}

export interface ResolvedModel {
  access: ModelAccess
  provider: ModelProvider
  /** The provider's own name for the model. */
  upstreamModel: string
}

export interface ModelCatalogOptions {
  connections: ProviderConnections
  log: Pick<Logger, 'warn'>
  /** Milliseconds; only differences are used. */
  clock: { now(): number }
  /** `OZ_DEFAULT_MODEL` */
  defaultModel?: string | null
  /** `OZ_GATEWAY_URL`: where agents find the gateway, if not at the control plane's own address. */
  gatewayUrl?: string | null
  /** How long one provider may take to list its models. */
  listTimeoutMs?: number
}

const freshForMs = 60_000
/** A failing provider is asked again this soon: a user who has just started it looks at once. */
const retryFailedAfterMs = 5_000
/** A model that is missing from a list of this age is looked for in a new one. */
const secondLookAfterMs = 2_000
/** Enough to find the right spelling in, short enough for a status line. */
const namedInErrors = 10

/** Where a harness finds the gateway for this wire. The clients of all of them append their own route to it. */
const basePaths: Record<ModelAccess['wire'], string> = {
  'anthropic-messages': '/llm/anthropic/v1',
  'openai-chat': '/llm/openai/v1',
  'openai-responses': '/llm/openai/v1',
  'google-generate-content': '/llm/google/v1beta',
  'bedrock-converse': '/llm/bedrock',
}

interface ProviderList {
  provider: ModelProvider
  models: ListedModel[] | undefined
  problem: string | undefined
  askedAt: number
  asking: Promise<void> | undefined
}

export function createModelCatalog({ providers, missing }: FoundProviders, options: ModelCatalogOptions): ModelCatalog {
  const { connections, log, clock, defaultModel, gatewayUrl, listTimeoutMs = 3_000 } = options
  const lists = providers.map(
    (provider): ProviderList => ({
      provider,
      models: undefined,
      problem: undefined,
      askedAt: Number.NEGATIVE_INFINITY,
      asking: undefined,
    }),
  )

  function ask(list: ProviderList): Promise<void> {
    list.asking ??= fetchModels(list.provider, connections, listTimeoutMs)
      .then(
        (models) => {
          list.models = models
          list.problem = undefined
        },
        (error: Error) => {
          list.models = undefined
          const problem = list.provider.mask(error.message)
          if (problem !== list.problem) log.warn({ provider: list.provider.name, problem }, 'model list not available')
          list.problem = error instanceof ProviderUnreachable ? `it cannot be reached: ${problem}` : problem
        },
      )
      .finally(() => {
        list.askedAt = clock.now()
        list.asking = undefined
      })
    return list.asking
  }

  async function upToDate(list: ProviderList): Promise<ProviderList> {
    const age = clock.now() - list.askedAt
    if (list.models === undefined) {
      if (list.asking || age > retryFailedAfterMs) await ask(list)
    } else if (age > freshForMs) void ask(list)
    return list
  }

  async function search(wanted: ProviderList[], modelId: string): Promise<ResolvedModel[]> {
    const found = (await Promise.all(wanted.map(upToDate))).flatMap((list) => findIn(list, modelId))
    if (found.length > 0) return found
    const old = wanted.filter((list) => isWhole(list) && clock.now() - list.askedAt > secondLookAfterMs)
    await Promise.all(old.map(ask))
    return old.flatMap((list) => findIn(list, modelId))
  }

  async function resolve(
    modelId: string | undefined,
    preferred: (provider: ModelProvider) => boolean = () => true,
  ): Promise<ResolvedModel> {
    if (lists.length === 0)
      throw new AppError('model_provider_missing', { forModel: modelId ? ` for the model ${modelId}` : '' })
    if (!modelId) return defaultModel ? resolve(defaultModel) : resolvePreferred()

    const slash = modelId.indexOf('/')
    const named = slash < 0 ? undefined : lists.find(({ provider }) => provider.name === modelId.slice(0, slash))
    const rest = modelId.slice(slash + 1)
    if (named && rest) {
      const [model] = await search([named], rest)
      if (model) return model
      if (!isWhole(named)) return toResolved(named, rest)
    }
    // A router's own names may begin with a provider's: openai/gpt-5 of an OpenAI-compatible server.
    const found = await search(lists, modelId)
    const [model] = found
    const [meant, ...others] = found.length > 1 ? found.filter(({ provider }) => preferred(provider)) : found
    if (meant && others.length === 0) return meant
    if (model)
      throw new AppError('model_ambiguous', { modelId, usable: found.map(({ access }) => access.id).join(', ') })
    const [only, ...more] = lists.filter(({ provider }) => preferred(provider))
    if (only && more.length === 0 && !isWhole(only)) return toResolved(only, modelId)
    throw new AppError('model_unknown', { modelId, usable: nameUsable(lists) })
  }

  async function resolvePreferred(): Promise<ResolvedModel> {
    for (const list of await Promise.all(lists.map(upToDate))) {
      const model = preferredModel(list.provider, list.models ?? [])
      if (model) return toResolved(list, model.name, model)
    }
    const problems = lists.map(
      ({ provider, problem }) => `${provider.name}: ${problem ?? 'it does not list its models'}`,
    )
    throw new AppError('model_default_missing', { problems: problems.join('; ') })
  }

  async function list(): Promise<ListModelsResponse> {
    await Promise.all(lists.map(upToDate))
    const fallback = await resolve(undefined).catch(() => undefined)
    return {
      // One that was configured is shown even where it cannot be used: the error of a run says the rest.
      default_model_id: fallback?.access.id ?? defaultModel ?? '',
      models: lists.flatMap(({ provider, models = [] }) =>
        models
          .filter((model) => model.isTextModel)
          .map((model) => ({
            id: `${provider.name}/${model.name}`,
            display_name: model.displayName,
            provider: provider.vendor,
            vision_supported: model.canSee ?? false,
            ...(model.contextWindow && { context_window: model.contextWindow }),
          })),
      ),
      problems: lists.flatMap((list) => {
        const problem = list.problem ?? whyNoModels(list)
        return problem ? [{ provider: list.provider.name, problem }] : []
      }),
      providers: [
        ...lists.map((list) => {
          const reason = list.problem ?? whyNoModels(list)
          return {
            name: list.provider.name,
            usable: list.problem === undefined,
            models: list.models?.filter((model) => model.isTextModel).length ?? 0,
            ...(reason !== undefined && { reason }),
          }
        }),
        ...missing.map(({ name, reason }) => ({ name, usable: false, models: 0, reason })),
      ],
    }
  }

  function toResolved({ provider }: ProviderList, name: string, listed?: ListedModel): ResolvedModel {
    const known = listed ?? findKnownModel(provider.kind, name)
    const access: ModelAccess = {
      id: `${provider.name}/${name}`,
      wire: provider.wire,
      base_path: basePaths[provider.wire],
    }
    if (gatewayUrl) access.base_url = gatewayUrl
    if (known.contextWindow) access.context_window = known.contextWindow
    if (known.canSee !== undefined) access.vision = known.canSee
    return { access, provider, upstreamModel: name }
  }

  function findIn(list: ProviderList, name: string): ResolvedModel[] {
    const model =
      list.models?.find((listed) => listed.name === name) ?? list.models?.find((listed) => isAlias(name, listed.name))
    return model ? [toResolved(list, name, model)] : []
  }

  const wires = new Map(providers.map(({ name, wire }) => [name, wire]))
  return { list, resolve, wireOf: (modelId) => wires.get(modelId.split('/', 1)[0] ?? '') }
}

/** What is not in its list does not exist; else the user's word counts. */
function isWhole({ provider, models }: ProviderList): boolean {
  return provider.lists === 'whole' && models !== undefined && models.length > 0
}

function whyNoModels({ provider, models }: ProviderList): string | undefined {
  if (models === undefined || models.length > 0) return undefined
  return `it lists no models; name one as ${provider.name}/${provider.kind === 'azure' ? 'DEPLOYMENT' : 'MODEL'}`
}

/**
 * Names that providers take without listing them: Ollama's `qwen3` for `qwen3:latest`, Anthropic's `claude-sonnet-4-5` and
 * `claude-3-7-sonnet-latest` for a dated model.
 */
function isAlias(name: string, listed: string): boolean {
  if (listed === `${name}:latest`) return true
  const stem = name.replace(/-(latest|0)$/, '')
  return listed.startsWith(`${stem}-`) && /^\d{8}$/.test(listed.slice(stem.length + 1))
}

function nameUsable(lists: ProviderList[]): string {
  const ids = lists.flatMap(({ provider, models = [] }) =>
    models.filter((model) => model.isTextModel).map((model) => `${provider.name}/${model.name}`),
  )
  const silent = lists.filter((list) => !isWhole(list)).map(({ provider }) => `${provider.name}/…`)
  const more = ids.length > namedInErrors ? [`and ${ids.length - namedInErrors} more`] : []
  return [...ids.slice(0, namedInErrors), ...more, ...silent].join(', ') || 'none'
}
