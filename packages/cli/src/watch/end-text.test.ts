import type { Execution, Run } from '@openoz/protocol'
import pc from 'picocolors'
import { expect, test } from 'vitest'
import { endText, type RunEnd } from './end-text.ts'

const colors = pc.createColors(false)
const at = (minutes: number) => new Date(1_795_000_000_000 + minutes * 60_000).toISOString()
const tokens = (requests: number) => ({
  requests,
  input_tokens: requests * 100,
  output_tokens: requests * 10,
  cache_read_tokens: 0,
  cache_write_tokens: 0,
  reasoning_tokens: 0,
  cost_usd: requests / 100,
})

const run = { run_id: 'r', state: 'SUCCEEDED', created_at: at(0), finished_at: at(62), usage: tokens(5) } as Run

function execution(minutes: number, step: string, failure_reason: string | null = null): Execution {
  const waterfall = [{ step, started_at: at(minutes), duration_ms: 250, status: 'completed' }]
  return { worker: 'build-1', created_at: at(minutes), retry_of: null, failure_reason, waterfall } as Execution
}

const executions = [execution(0, 'first'), execution(61, 'second')]
const text = (end: Partial<RunEnd> = {}) => endText({ run, executions, ...end }, { colors })

test('a whole run is told with all its attempts, its time and its tokens', () => {
  expect(text()).toMatch(/attempt 1:\n {2}first .*\n\nFrom accepted to done on build-1, attempt 2:\n {2}second /)
  expect(text()).toMatch(/\n\n1 h 2 min · tokens: 500 in, 50 out in 5 requests · \$0\.0500\n$/)
})

test('why an attempt failed is told with it, by the number that `oz run attempts` gives it', () => {
  const lost = { ...execution(61, 'second', 'lost'), waterfall: [] }
  const told = text({
    executions: [execution(0, 'first'), lost, execution(62, 'third')],
    from: { at: at(60), usage: run.usage },
  })
  expect(told).toMatch(
    /^\nFrom .* attempt 2:\n {2}ended badly {2}lost: The execution was lost: nobody renewed its lease\.\n\nFrom .* attempt 3:\n/,
  )
  expect(text({ executions: [execution(0, 'first', 'of_tomorrow')] })).toContain('  ended badly  of_tomorrow\n')
})

test('what came after a message is told without the turns before it', () => {
  const told = text({ from: { at: at(60), usage: tokens(3) } })
  expect(told).toMatch(
    /^\nFrom accepted to done on build-1:\n {2}second .*\n\n2 min 0 s · tokens: 200 in, 20 out in 2 /,
  )
  expect(told).toContain('$0.0200')
})

test('a turn in the agent that still waited has no steps, and one without tokens none', () => {
  const [first] = executions
  expect(text({ executions: first ? [first] : [], from: { at: at(61), usage: run.usage } })).toBe('\n1 min 0 s\n')
})

test('a question comes with the way to answer it', () => {
  const blocked: Run = { ...run, state: 'BLOCKED', finished_at: null, usage: tokens(0) }
  expect(text({ run: blocked, executions: [] })).toBe('\nAnswer it: oz run follow-up r "…"\n')
})
