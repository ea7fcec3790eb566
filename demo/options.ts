import { parseArgs } from 'node:util'
import { AppError } from '@openoz/protocol'
import { type DemoTask, type DemoTaskName, demoTasks } from './tasks.ts'

export interface DemoOptions {
  /** The user's own clone; undefined: the sample project. */
  repo: string | undefined
  prompt: string
  /** For the sample project. */
  testCommand: string | null
  /** What the demo says when the agent asks something. */
  answer: string | undefined
  isJson: boolean
  /** As of `oz up`. */
  backend: DemoBackend
  /** Of the containers, where there are some. */
  image: string
}

const backends = ['direct', 'docker', 'auto'] as const
type DemoBackend = (typeof backends)[number]

/** Has what the tasks use: Node and git. */
const defaultImage = 'node:24-bookworm'

export const usage = `Usage: npm run demo [-- OPTIONS]

Starts a control plane and a worker, lets an agent work on a repository, and shows it live.

  --task NAME              what the agent shall do in the sample project:
${taskLines()}
  --repo PATH              your own repository instead of the sample project (needs a model)
  --prompt TEXT            what the agent shall do there
  --backend NAME           direct (default): the agent is a process of this machine; docker: it works in a container;
                           auto: docker where an engine answers
  --image IMAGE            of that container (default: ${defaultImage}, which the engine pulls when it does not have it)
  --output-format FORMAT   pretty (default) or json: the last line of stdout is the result, the rest goes to stderr
  --help

A real model thinks when ANTHROPIC_API_KEY, OPENAI_API_KEY or OLLAMA_HOST is set.`

function taskLines(): string {
  return Object.entries(demoTasks)
    .map(([name, { about }]) => `                             ${name.padEnd(9)} ${about}`)
    .join('\n')
}

/** Throws `usage` or `option_invalid`. */
export function readDemoOptions(args: string[]): DemoOptions | 'help' {
  let values: Record<string, string | boolean | undefined>
  try {
    ;({ values } = parseArgs({
      args,
      options: {
        task: { type: 'string' },
        repo: { type: 'string' },
        prompt: { type: 'string', short: 'p' },
        backend: { type: 'string' },
        image: { type: 'string' },
        'output-format': { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    }))
  } catch (error) {
    throw new AppError('usage', { problem: (error as Error).message.replace(/\.?$/, '.') })
  }
  if (values.help) return 'help'
  const {
    repo,
    task = 'fix',
    prompt,
    image = defaultImage,
    'output-format': format = 'pretty',
  } = values as Record<string, string | undefined>
  if (!['pretty', 'text', 'json', 'ndjson'].includes(format)) {
    throw new AppError('option_invalid', { option: '--output-format', problem: 'it is pretty or json' })
  }
  if (repo !== undefined && prompt === undefined) throw new AppError('usage', { problem: '--repo needs --prompt.' })
  if (repo !== undefined && values.task !== undefined)
    throw new AppError('usage', {
      problem: '--task is for the sample project; with --repo say what to do by --prompt.',
    })
  if (!Object.hasOwn(demoTasks, task)) {
    const problem = `it is one of ${Object.keys(demoTasks).join(', ')}`
    throw new AppError('option_invalid', { option: '--task', problem })
  }
  const backend = backends.find((name) => name === (values.backend ?? 'direct'))
  if (backend === undefined) {
    throw new AppError('option_invalid', { option: '--backend', problem: `it is one of ${backends.join(', ')}` })
  }
  const { testCommand, answer, ...chosen }: DemoTask = demoTasks[task as DemoTaskName]
  const isJson = format === 'json' || format === 'ndjson'
  return prompt === undefined
    ? { repo, prompt: chosen.prompt, testCommand, answer, isJson, backend, image }
    : { repo, prompt, testCommand: demoTasks.fix.testCommand, answer: undefined, isJson, backend, image }
}
