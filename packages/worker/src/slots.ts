/**
 * How many tasks this worker takes. A slot is held from the claim until nothing of the task runs any more. Whoever stops the worker drains it for good;
 * an operator who drains its worker id may think better of it.
 */
export class Slots {
  readonly max: number
  readonly #onChange: () => void
  #active = 0
  #isStopping = false
  #isDrainedByOperator = false

  /** `max` 0: no limit. */
  constructor(max: number, onChange: () => void) {
    this.max = max
    this.#onChange = onChange
  }

  get active(): number {
    return this.#active
  }

  get isDraining(): boolean {
    return this.#isStopping || this.#isDrainedByOperator
  }

  /** Takes a slot, or says why not, in the words of `task_rejected`. */
  take(): { taken: true } | { taken: false; reason: string; isFull: boolean } {
    if (this.isDraining) return { taken: false, reason: 'worker is draining', isFull: false }
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
    if (this.#isStopping) return
    this.#isStopping = true
    this.#onChange()
  }

  drainByOperator(isDrained: boolean): void {
    if (this.#isDrainedByOperator === isDrained) return
    this.#isDrainedByOperator = isDrained
    this.#onChange()
  }
}
