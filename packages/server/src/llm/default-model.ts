import type { ListedModel } from './provider-models.ts'
import type { ModelProvider, ProviderName } from './providers.ts'

/** Which listed model a run gets that names none, best first. One row per provider. */
const preferences: Record<ProviderName, (models: ListedModel[]) => ListedModel[]> = {
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
  // The owner has chosen what is there, and the list begins with what was used or fetched last.
  ollama: (models) => models,
}

export function preferredModel(provider: ModelProvider, models: ListedModel[]): ListedModel | undefined {
  const usable = models.filter((model) => model.isTextModel)
  // A compatible server under OPENAI_BASE_URL has models of its own: the first is what it was started with.
  if (provider.name === 'openai' && !provider.isVendor) return usable[0]
  return preferences[provider.name](usable)[0] ?? usable[0]
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
