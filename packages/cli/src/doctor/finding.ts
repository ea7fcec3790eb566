/** One line of `oz doctor`. */
export interface Finding {
  check: string
  /** `fail`: something will not work. `warn`: something works less well than it could. */
  level: 'ok' | 'warn' | 'fail'
  text: string
  /** What to do, where something is to be done. */
  remedy?: string
}
