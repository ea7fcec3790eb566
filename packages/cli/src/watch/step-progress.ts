import type { SessionEventData } from '@openoz/protocol'

type Step = Pick<SessionEventData['setup_step'], 'step' | 'detail' | 'progress'>

/**
 * How far steps are, in words that are worth being read: each whole tenth once, or, while nobody knows how much there is, what has doubled since. A
 * step may tell of itself every other second, and output that scrolls by cannot be taken back.
 */
export interface StepProgress {
  /** undefined: nothing new. */
  next(event: Step): string | undefined
  end(step: string): void
}

export function createStepProgress(): StepProgress {
  /** What was said last: a tenth, an amount, or words. */
  const said = new Map<string, number | string>()
  const say = (step: string, mark: number | string, words: string) => {
    said.set(step, mark)
    return words
  }
  return {
    next({ step, detail, progress }) {
      const last = said.get(step)
      if (progress === undefined) return detail === undefined || last === detail ? undefined : say(step, detail, detail)
      const { current, total, unit } = progress
      if (total !== undefined && total > 0) {
        const tenth = Math.min(10, Math.floor((current / total) * 10))
        return typeof last === 'number' && tenth <= last ? undefined : say(step, tenth, `${tenth * 10} %`)
      }
      if (current <= 0 || (typeof last === 'number' && current < last * 2)) return undefined
      return say(step, current, unit === 'bytes' ? megabytes(current) : `${current} ${unit}`)
    },
    end: (step) => void said.delete(step),
  }
}

function megabytes(bytes: number): string {
  return `${(bytes / 1_000_000).toFixed(bytes < 10_000_000 ? 1 : 0)} MB`
}
