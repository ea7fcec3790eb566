import pc from 'picocolors'
import { expect, test } from 'vitest'
import { renderWaterfall } from './waterfall.ts'

const at = (ms: number) => new Date(1_795_000_000_000 + ms).toISOString()

test('each step stands where it lies in time, in the order in which it began', () => {
  const lines = renderWaterfall(
    [
      { step: 'setup_command', started_at: at(500), duration_ms: 500, status: 'failed' },
      { step: 'offer', started_at: at(0), duration_ms: 250, status: 'completed' },
      { step: 'harness', started_at: at(900), duration_ms: null, status: 'started' },
    ],
    { colors: pc.createColors(false) },
  )
  expect(lines).toEqual([
    'offer          ██████                      250 ms',
    'setup command              ████████████    500 ms  failed',
    'harness                             █    not finished',
  ])
  expect(renderWaterfall([], { colors: pc.createColors(false) })).toEqual([])
})
