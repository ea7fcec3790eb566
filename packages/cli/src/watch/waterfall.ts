import type { WaterfallStep } from '@openoz/protocol'
import type { Colors } from '../output.ts'
import { oneLine } from '../plain-text.ts'
import { durationText } from '../time-text.ts'

const barCells = 24
const nameCells = 40

/** Every step from the accepted run to the end, with a bar where it lies in time. */
export function renderWaterfall(steps: readonly WaterfallStep[], { colors }: { colors: Colors }): string[] {
  const timed = steps.map((step) => {
    const start = Date.parse(step.started_at)
    return {
      ...step,
      name: shorten(oneLine(step.step).replaceAll('_', ' ')),
      start,
      end: start + (step.duration_ms ?? 0),
    }
  })
  if (timed.length === 0) return []
  timed.sort((a, b) => a.start - b.start)
  const first = Math.min(...timed.map((step) => step.start))
  const span = Math.max(1, Math.max(...timed.map((step) => step.end)) - first)
  const nameWidth = Math.max(...timed.map((step) => step.name.length))
  return timed.map((step) => {
    const begin = Math.min(barCells - 1, Math.floor(((step.start - first) / span) * barCells))
    const length = Math.max(1, Math.round(((step.end - step.start) / span) * barCells))
    const bar = `${' '.repeat(begin)}${'█'.repeat(Math.min(length, barCells - begin))}`.padEnd(barCells)
    const paint = step.status === 'failed' ? colors.red : colors.cyan
    const took = step.duration_ms === null ? 'not finished' : durationText(step.duration_ms)
    return `${step.name.padEnd(nameWidth)}  ${paint(bar)}  ${took.padStart(8)}${step.status === 'failed' ? '  failed' : ''}`
  })
}

function shorten(name: string): string {
  return name.length <= nameCells ? name : `${name.slice(0, nameCells - 1)}…`
}
