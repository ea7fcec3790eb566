import type { ModelProvider, ProviderKind } from './model-provider.ts'
import type { ListedModel } from './provider-models.ts'

const asListed = (models: ListedModel[]) => models

/** Which listed model a run gets that names none, best first. One row per kind of provider. */
const preferences: Record<ProviderKind, (models: ListedModel[]) => ListedModel[]> = {
  // The middle family: good enough for coding at a fifth of the largest one's price. Newest, because prices stay and skills grow.
  anthropic: (models) => {
    const sonnets = models.filter(({ name }) => name.includes('sonnet'))
    return newestFirst(sonnets.length > 0 ? sonnets : models.filter(({ name }) => name.startsWith('claude-')))
  },
  // The full-size models of the main line and its coding variants. Left out: small ones (too weak for tools over many steps), `pro` (ten
  // times the price), `chat` (tuned for the web site), dated copies and previews (the alias is the same model).
  openai: (models) =>
    newestFirst(
      models.filter(
        ({ name }) =>
          /^(gpt-\d|codex)/.test(name) && !/mini|nano|pro|chat|preview|\d{4}-\d{2}-\d{2}|-\d{4}$|spark|oss/.test(name),
      ),
    ),
  // The large ones; a preview may be withdrawn within weeks.
  google: (models) => {
    const pros = models.filter(({ name }) => /^gemini-\d.*-pro/.test(name))
    const released = pros.filter(({ name }) => !/preview|exp|-\d{3}$/.test(name))
    return newestFirst(released.length > 0 ? released : pros)
  },
  bedrock: (models) => {
    const sonnets = models.filter(({ name }) => /anthropic\.claude-.*sonnet/.test(name))
    return newestFirst(sonnets.length > 0 ? sonnets : models.filter(({ name }) => name.includes('anthropic.claude-')))
  },
  azure: asListed,
  'openai-compatible': asListed,
  // The owner has chosen what is there, and the list begins with what was used or fetched last.
  ollama: asListed,
}

export function preferredModel(provider: ModelProvider, models: ListedModel[]): ListedModel | undefined {
  const usable = models.filter((model) => model.isTextModel)
  // A compatible server under OPENAI_BASE_URL has models of its own: the first is what it was started with.
  if (provider.kind === 'openai' && !provider.isVendor) return usable[0]
  return preferences[provider.kind](usable)[0] ?? usable[0]
}

/** By version, then by age, then the shorter name: a point release may appear on the same day as its variants. */
function newestFirst(models: ListedModel[]): ListedModel[] {
  return models.toSorted(
    (a, b) => versionOf(b) - versionOf(a) || b.createdAt - a.createdAt || a.name.length - b.name.length,
  )
}

/** `gpt-5.1-codex` → 5.1, `claude-sonnet-4-6-20260101` → 4.6, `claude-3-5-sonnet-20241022` → 3.5. */
function versionOf({ name }: ListedModel): number {
  const [, major, minor] = /-(\d{1,2})(?:[.-](\d{1,2}))?(?![\d])/.exec(name) ?? []
  return Number(major ?? 0) + Number(minor ?? 0) / 100
}
