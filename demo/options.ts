import { parseArgs } from 'node:util'
import { AppError } from '@openoz/protocol'

export interface DemoOptions {
  /** The user's own clone; undefined: the sample project. */
  repo: string | undefined
  prompt: string
  isJson: boolean
}

const samplePrompt = 'Make the failing test pass, commit, and summarise what you did.'

export const usage = `Usage: npm run demo [-- OPTIONS]

Starts a control plane and a worker, lets an agent work on a repository, and shows it live.

  --repo PATH              your own repository instead of the sample project (needs a model)
  --prompt TEXT            what the agent shall do there
  --output-format FORMAT   pretty (default) or json: the last line of stdout is the result, the rest goes to stderr
  --help

A real model thinks when ANTHROPIC_API_KEY, OPENAI_API_KEY or OLLAMA_HOST is set.`

/** Throws `usage`. */
export function readDemoOptions(args: string[]): DemoOptions | 'help' {
  let values: Record<string, string | boolean | undefined>
  try {
    ;({ values } = parseArgs({
      args,
      options: {
        repo: { type: 'string' },
        prompt: { type: 'string', short: 'p' },
        'output-format': { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    }))
  } catch (error) {
    throw new AppError('usage', { problem: (error as Error).message.replace(/\.?$/, '.') })
  }
  if (values.help) return 'help'
  const { repo, prompt, 'output-format': format = 'pretty' } = values as Record<string, string | undefined>
  if (!['pretty', 'text', 'json', 'ndjson'].includes(format)) {
    throw new AppError('option_invalid', { option: '--output-format', problem: 'it is pretty or json' })
  }
  if (repo !== undefined && prompt === undefined) throw new AppError('usage', { problem: '--repo needs --prompt.' })
  return { repo, prompt: prompt ?? samplePrompt, isJson: format === 'json' || format === 'ndjson' }
}
