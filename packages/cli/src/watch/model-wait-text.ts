import type { SessionEventData } from '@openoz/protocol'
import { oneLine } from '../plain-text.ts'

/** Why nothing happens, and until when. */
export function modelWaitText({ reason, until, attempt }: SessionEventData['model_wait']): string {
  return `… waiting for the model until ${timeText(until)} (${oneLine(reason)}; attempt ${attempt})`
}

/** Of the clock on the wall. */
function timeText(timestamp: string): string {
  const at = new Date(timestamp)
  return Number.isNaN(at.getTime()) ? oneLine(timestamp) : at.toLocaleTimeString('en-GB')
}
