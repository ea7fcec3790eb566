import { AppError } from '@openoz/protocol'
import type { Harness } from './harness.ts'

/** Loaded when a run needs one: the libraries of a harness take longer to load than the agent itself. */
const harnesses: Record<string, () => Promise<Harness>> = {
  oz: async () => (await import('./oz.ts')).ozHarness,
}

/** How to load the harness of this name; without a name the built-in one. Throws `harness_unknown`. */
export function selectHarness(name = 'oz'): () => Promise<Harness> {
  const load = Object.hasOwn(harnesses, name) ? harnesses[name] : undefined
  if (!load) throw new AppError('harness_unknown', { harness: name, known: Object.keys(harnesses).join(', ') })
  return load
}
