import type { RunState } from '@openoz/protocol'
import type { Colors } from './output.ts'

const paints: Record<RunState, (colors: Colors) => (text: string) => string> = {
  QUEUED: (colors) => colors.dim,
  PENDING: (colors) => colors.dim,
  CLAIMED: (colors) => colors.dim,
  INPROGRESS: (colors) => colors.cyan,
  SUCCEEDED: (colors) => colors.green,
  FAILED: (colors) => colors.red,
  ERROR: (colors) => colors.red,
  BLOCKED: (colors) => colors.yellow,
  CANCELLED: (colors) => colors.yellow,
}

/** A newer server may have a state that this program does not know: it is shown as it is. */
export function paintState(state: string, colors: Colors): string {
  const paint = paints[state as RunState] as ((colors: Colors) => (text: string) => string) | undefined
  return paint ? paint(colors)(state) : state
}
