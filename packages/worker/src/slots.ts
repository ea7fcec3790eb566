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

  /** Takes a slot, unless something else than slots is lacking (`lack`), or says why not, in the words of `task_rejected`. */
  take(lack?: string): { taken: true } | { taken: false; reason: string; isFull: boolean } {
    // What is begun on a full disk fails there, and so does each of its retries: it is left to others, or waits.
    if (lack !== undefined) return { taken: false, reason: lack, isFull: false }
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

  /** False: it was so already. */
  drainByOperator(isDrained: boolean): boolean {
    if (this.#isDrainedByOperator === isDrained) return false
    this.#isDrainedByOperator = isDrained
    this.#onChange()
    return true
  }
}

/** For the log. Told again what it knows, on another connection, a worker has nothing to say. */
export function drainNotice(isDrained: boolean): string {
  return isDrained
    ? 'An operator drains this worker: no new tasks; running ones go on'
    : 'An operator has ended the drain: this worker takes new tasks again'
}
