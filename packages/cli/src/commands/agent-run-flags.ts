/**
 * The flags of `oz agent run`, once for both of its uses: to be the agent of a run (`--task-id`, as workers start it) and to start a run here
 * (`--prompt`). They are the reference's, all of them, so that command lines made for it are understood; what they need and this version does not
 * have is said by name. Plain data: an agent that a worker starts reads its command line without loading commander.
 */
export interface AgentRunFlag {
  /** As commander writes it. */
  flags: string
  /** Shown in the help. */
  help?: string
  /** May be given several times. */
  isList?: true
  /** What the flag means without its value. */
  preset?: string
  /** With `--task-id`: whether it has an effect (or the run's own config says the same), or workers pass it unasked. Otherwise the log notes it. */
  asAgent?: 'has effect' | 'unasked' | 'conflicts'
  /** Without `--task-id`: refused, because this is missing. */
  needs?: string
  /** Means nothing without `--task-id`. */
  needsTask?: true
}

export const agentRunFlags: readonly AgentRunFlag[] = [
  {
    flags: '-p, --prompt <text>',
    help: 'what the agent shall do, here and now; - reads it from stdin',
    asAgent: 'conflicts',
  },
  { flags: '--saved-prompt <id>', asAgent: 'conflicts', needs: 'saved prompts' },
  { flags: '--model <id>', help: 'provider/model (default: the server’s; see oz model list)', asAgent: 'has effect' },
  {
    flags: '-f, --file <path>',
    help: 'JSON or YAML file with more of the config; flags win (WARP_AGENT_CONFIG_FILE)',
    asAgent: 'conflicts',
  },
  { flags: '-n, --name <name>', help: 'groups runs in lists' },
  { flags: '-C, --cwd <dir>', help: 'work in this folder (default: the current one)', asAgent: 'has effect' },
  {
    flags: '--share [recipient]',
    help: 'who may follow it: team, public or an e-mail address, with :view (default) or :edit; may be repeated',
    isList: true,
    preset: '',
    asAgent: 'unasked',
  },
  {
    flags: '-e, --environment <id>',
    help: 'clone its repositories here and run its setup commands first',
    asAgent: 'has effect',
  },
  { flags: '--conversation <id>', help: 'continue this conversation; the files here stay as they are' },
  { flags: '--no-snapshot', help: 'keep what the run changes on this machine: no oz run diff' },
  {
    flags: '--idle-on-complete [duration]',
    help: 'wait so long for a follow-up after a success (45m without a value; default: do not wait)',
    preset: '45m',
    asAgent: 'has effect',
  },
  {
    flags: '--idle-on-fail [duration]',
    help: 'the same after a failure (15m without a value; OZ_IDLE_ON_FAIL)',
    preset: '15m',
  },
  { flags: '--harness <harness>', asAgent: 'has effect' },
  { flags: '--task-id <uuid>', help: 'be the agent of this run; workers pass it', asAgent: 'has effect' },
  { flags: '--sandboxed', asAgent: 'unasked' },
  { flags: '--gui' },
  { flags: '--no-computer-use', asAgent: 'unasked' },
  { flags: '--computer-use', asAgent: 'unasked', needs: 'the use of a computer’s screen' },
  { flags: '--profile <id>', needs: 'execution profiles' },
  { flags: '--skill <spec>', needs: 'skills' },
  { flags: '--mcp <spec>', isList: true, needs: 'MCP servers' },
  { flags: '--mcp-server <uuid>', isList: true, needs: 'MCP servers' },
  { flags: '--strict-mcp-startup', needs: 'MCP servers' },
  { flags: '--mcp-startup-timeout <duration>', needs: 'MCP servers' },
  { flags: '--snapshot-upload-timeout <duration>' },
  { flags: '--snapshot-script-timeout <duration>' },
  { flags: '--bedrock-inference-role <arn>', needs: 'roles for Amazon Bedrock of a run’s own' },
  { flags: '--bedrock-role-region <region>', needs: 'roles for Amazon Bedrock of a run’s own' },
  { flags: '--skip-initial-turn', needsTask: true },
  { flags: '--configure-git-credentials-with-github', needsTask: true },
  { flags: '--repository-head-override-json <json>', isList: true, needsTask: true },
  { flags: '--remove-repository-origins', needsTask: true },
  { flags: '--session-sharing-server-url <url>' },
  { flags: '--ws-server-url <url>' },
]

/** `--idle-on-fail` of `--idle-on-fail [duration]`. */
export function longName(spelling: string): string {
  return /--[\w-]+/.exec(spelling)?.[0] ?? ''
}
