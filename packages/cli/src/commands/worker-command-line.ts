import type { AgentRunInput } from './agent-run.ts'
import { type AgentRunFlag, agentRunFlags, longName } from './agent-run-flags.ts'

/** The global options that mean something to an agent. */
const globalFlags = ['--server-url <url>', '--server-root-url <url>', '--api-key <key>', '--debug']

/**
 * Reads the command line that workers start agents with. They wait for it, and commander alone takes 15 ms to load; so what it would only
 * confirm is read here. undefined for everything else, of which commander says what it is or what is wrong with it.
 */
export function readWorkerCommandLine([group, command, ...args]: string[]): AgentRunInput | undefined {
  if (group !== 'agent' || command !== 'run') return undefined
  const values = new Map<string, string>()
  for (let at = 0; at < args.length; at++) {
    const flag = flags.get(args[at] ?? '')
    const next = args[at + 1]
    // What does not go together with a task is refused in commander's words.
    if (!flag || flag.conflicts || (flag.takes === '<' && next === undefined)) return undefined
    const hasValue = flag.takes === '<' || (flag.takes === '[' && next !== undefined && !next.startsWith('-'))
    values.set(flag.name, hasValue ? (next ?? '') : '')
    if (hasValue) at++
  }
  if (!values.has('--task-id')) return undefined
  return {
    globals: {
      apiKey: values.get('--api-key'),
      serverUrl: values.get('--server-url'),
      serverRootUrl: values.get('--server-root-url'),
      debug: values.has('--debug'),
    },
    options: { taskId: values.get('--task-id'), cwd: values.get('--cwd') },
    given: agentRunFlags.map(({ flags: spelling }) => longName(spelling)).filter((name) => values.has(name)),
  }
}

/** By each of their spellings. `takes`: how the value is written, if there is one. */
const flags = new Map(
  [...globalFlags.map((spelling) => ({ flags: spelling })), ...agentRunFlags].flatMap((known: AgentRunFlag) => {
    const takes = /[<[]/.exec(known.flags)?.[0]
    const flag = { name: longName(known.flags), takes, conflicts: known.asAgent === 'conflicts' }
    return known.flags.split(/,? /).flatMap((word) => (word.startsWith('-') ? [[word, flag] as const] : []))
  }),
)
