import type { Execution, Run } from '@openoz/protocol'
import { attemptsOf, reasonText } from '../attempts.ts'
import type { Colors } from '../output.ts'
import { oneLine } from '../plain-text.ts'
import { durationText } from '../time-text.ts'
import { usageText } from '../usage-text.ts'
import { renderWaterfall } from './waterfall.ts'

export interface RunEnd {
  run: Run
  executions: Execution[]
  /** What was before is told already: the moment of the message that went on with the run, and the tokens until then. */
  from?: { at: string; usage: Run['usage'] }
}

/** What is told of a run once it rests: each attempt's steps, and why it failed; time and tokens, and how to answer a question. */
export function endText({ run, executions, from }: RunEnd, { colors }: { colors: Colors }): string {
  const lines: string[] = []
  const startedAt = Date.parse(from?.at ?? run.created_at)
  const attempts = attemptsOf(executions).filter(
    ({ created_at }) => from === undefined || Date.parse(created_at) >= startedAt,
  )
  for (const { worker, waterfall, number, failure_reason: reason } of attempts) {
    const steps = renderWaterfall(waterfall, { colors })
    if (steps.length === 0 && reason === null) continue
    const attempt = attempts.length > 1 ? `, attempt ${number}` : ''
    lines.push('', `From accepted to done on ${oneLine(worker)}${attempt}:`, ...steps.map((step) => `  ${step}`))
    if (reason !== null) lines.push(`  ${colors.red('ended badly')}  ${reasonText(reason)}`)
  }
  const usage = from === undefined ? run.usage : usageSince(from.usage, run.usage)
  const facts = []
  if (run.finished_at !== null) facts.push(durationText(Date.parse(run.finished_at) - startedAt))
  if (usage.requests > 0) facts.push(`tokens: ${usageText(usage)}`)
  if (facts.length > 0) lines.push('', facts.join(' · '))
  if (run.state === 'BLOCKED') lines.push('', `Answer it: oz run follow-up ${run.run_id} "…"`)
  return lines.map((line) => `${line}\n`).join('')
}

function usageSince(before: Run['usage'], now: Run['usage']): Run['usage'] {
  return {
    requests: now.requests - before.requests,
    input_tokens: now.input_tokens - before.input_tokens,
    output_tokens: now.output_tokens - before.output_tokens,
    cache_read_tokens: now.cache_read_tokens - before.cache_read_tokens,
    cache_write_tokens: now.cache_write_tokens - before.cache_write_tokens,
    reasoning_tokens: now.reasoning_tokens - before.reasoning_tokens,
    ...(now.cost_usd === undefined ? {} : { cost_usd: now.cost_usd - (before.cost_usd ?? 0) }),
  }
}
