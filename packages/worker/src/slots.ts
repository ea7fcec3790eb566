/**
 * How many tasks this worker takes. A slot is held from the claim until the outcome is told and everything is cleaned up. Draining never
 * ends: the worker stops afterwards.
 */
export class Slots {
  readonly max: number
  readonly #onChange: () => void
  #active = 0
  #isDraining = false

  /** `max` 0: no limit. */
  constructor(max: number, onChange: () => void) {
    this.max = max
    this.#onChange = onChange
  }

  get active(): number {
    return this.#active
  }

  get isDraining(): boolean {
    return this.#isDraining
  }

  /** Takes a slot, or says why not, in the words of `task_rejected`. */
  take(): { taken: true } | { taken: false; reason: string; isFull: boolean } {
    if (this.#isDraining) return { taken: false, reason: 'worker is draining', isFull: false }
    if (this.max > 0 && this.#active >= this.max) {
      return { taken: false, reason: 'worker at maximum concurrency', isFull: true }
    }
    this.occupy()
    return { taken: true }
  }

  /** For a task that runs already, whatever the limit. */
  occupy(): void {
    this.#active += 1
    this.#onChange()
  }

  release(): void {
    this.#active -= 1
    this.#onChange()
  }

  drain(): void {
    if (this.#isDraining) return
    this.#isDraining = true
    this.#onChange()
  }
}
