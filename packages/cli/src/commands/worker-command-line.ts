import type { AgentRunInput } from './agent-run.ts'

/** Of the reference's command line, what workers pass: taken, so that any worker can start this program, and noted in the log. */
export const passedOn: [flags: string, takes?: 'list'][] = [
  ['--share [recipient]', 'list'],
  ['--sandboxed'],
  ['--model <id>'],
  ['--profile <id>'],
  ['--skill <spec>'],
  ['--mcp <spec>', 'list'],
  ['--mcp-server <uuid>', 'list'],
  ['--strict-mcp-startup'],
  ['--mcp-startup-timeout <duration>'],
  ['--computer-use'],
  ['--no-computer-use'],
  ['--bedrock-inference-role <arn>'],
  ['--bedrock-role-region <region>'],
  ['--harness <harness>'],
  ['--no-snapshot'],
  ['--snapshot-upload-timeout <duration>'],
  ['--snapshot-script-timeout <duration>'],
  ['-e, --environment <id>'],
  ['--conversation <id>'],
  ['--idle-on-complete [duration]'],
  ['--idle-on-fail [duration]'],
  ['--skip-initial-turn'],
  ['--configure-git-credentials-with-github'],
  ['--repository-head-override-json <json>', 'list'],
  ['--remove-repository-origins'],
  ['--session-sharing-server-url <url>'],
  ['--ws-server-url <url>'],
]

/** What `agent run` acts on, and the global options that mean something to it. */
const actedOn = [
  '--task-id <uuid>',
  '-C, --cwd <dir>',
  '--server-url <url>',
  '--server-root-url <url>',
  '--api-key <key>',
  '--debug',
]

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
    if (!flag || (flag.takes === '<' && next === undefined)) return undefined
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
    given: passedOn.map(([spelling]) => longName(spelling)).filter((name) => values.has(name)),
  }
}

const longName = (spelling: string) => /--[\w-]+/.exec(spelling)?.[0] ?? ''

/** By each of their spellings. `takes`: how the value is written, if there is one. */
const flags = new Map(
  [...actedOn, ...passedOn.map(([spelling]) => spelling)].flatMap((spelling) => {
    const flag = { name: longName(spelling), takes: /[<[]/.exec(spelling)?.[0] }
    return spelling.split(/,? /).flatMap((word) => (word.startsWith('-') ? [[word, flag] as const] : []))
  }),
)
