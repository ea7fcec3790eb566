/** How far a pull is. `total` is missing while the sizes of some layers are not known. */
export interface PullProgress {
  /** For people: "downloading, 3 of 7 layers are here". */
  text: string
  /** Bytes that were downloaded. */
  current: number
  total?: number
}

interface Layer {
  current: number
  total?: number
  phase: 'waiting' | 'downloading' | 'downloaded' | 'extracting' | 'done'
}

const phases: Record<string, Layer['phase']> = {
  'Pulling fs layer': 'waiting',
  Waiting: 'waiting',
  Downloading: 'downloading',
  'Verifying Checksum': 'downloaded',
  'Download complete': 'downloaded',
  Extracting: 'extracting',
  'Pull complete': 'done',
}

/** Adds up what a pull says of its layers. Layers that were there already are left out. */
export class PullProgressSum {
  readonly #layers = new Map<string, Layer>()

  take({ id, status, progressDetail }: Record<string, unknown>): void {
    const phase = typeof status === 'string' ? phases[status] : undefined
    if (typeof id !== 'string' || phase === undefined) return
    const layer = this.#layers.get(id) ?? { current: 0, phase }
    layer.phase = phase
    // Extracting counts from zero again.
    const { current, total } = (progressDetail ?? {}) as { current?: unknown; total?: unknown }
    if (phase === 'downloading') {
      if (typeof current === 'number') layer.current = current
      if (typeof total === 'number' && total > 0) layer.total = total
    } else if (phase !== 'waiting') {
      layer.total ??= layer.current
      layer.current = layer.total
    }
    this.#layers.set(id, layer)
  }

  now(): PullProgress {
    const layers = [...this.#layers.values()]
    const current = layers.reduce((sum, layer) => sum + layer.current, 0)
    const isKnown = layers.length > 0 && layers.every(({ total }) => total !== undefined)
    const total = isKnown ? layers.reduce((sum, layer) => sum + (layer.total ?? 0), 0) : undefined
    return { text: this.#text(layers), current, ...(total !== undefined && { total }) }
  }

  #text(layers: Layer[]): string {
    if (layers.length === 0) return 'asking the registry'
    const here = layers.filter(({ phase }) => phase !== 'waiting' && phase !== 'downloading').length
    if (here < layers.length) return `downloading, ${here} of ${layers.length} layers are here`
    const done = layers.filter(({ phase }) => phase === 'done').length
    return `unpacking, ${done} of ${layers.length} layers are done`
  }
}

const firstGapMs = 2_000
const lastGapMs = 32_000
/** So many messages, and the gap doubles: about 50 in ten minutes. */
const perGap = 10

/** How long to wait before message number `count`: often at first, seldom in the end. */
export function progressGapMs(count: number): number {
  return Math.min(lastGapMs, firstGapMs * 2 ** Math.floor(count / perGap))
}
