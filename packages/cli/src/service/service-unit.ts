/** What a systemd unit for a worker says. Texts only: `worker-service.ts` puts them into place. */
export interface ServiceUnit {
  workerId: string
  /** Program and arguments; nothing secret, everybody can read it. */
  command: string[]
  /** Where `oz` and `git` are found. */
  path: string
  environmentFile: string
  /** A service of one user, under that user's own systemd. */
  isUsers: boolean
}

/** Tells a worker to end without its agents, which the next process takes over. (Node keeps SIGUSR1 for its debugger.) */
export const leaveSignal = 'SIGUSR2'

export function unitText({ workerId, command, path, environmentFile, isUsers }: ServiceUnit): string {
  return `# Written by \`oz-agent-worker install\`; \`oz-agent-worker uninstall\` removes it. Changes belong into a drop-in: systemctl edit.
[Unit]
Description=openoz worker ${escapeSpecifiers(workerId)}
${isUsers ? '' : '# It dials until the network is there; but it must be gone before the network is.\nAfter=network.target\n'}# However often it fails, it is started again: the machine it runs on may be the only one.
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=${command.map(quoteArgument).join(' ')}
# Holds the API key: mode 0600, read by systemd before it starts the worker.
EnvironmentFile=${escapeSpecifiers(environmentFile)}
Environment=${quote(escapeSpecifiers(`PATH=${path}`))}
Restart=always
RestartSec=5
# Wrong use stays wrong.
RestartPreventExitStatus=2
# Agents outlive a crash, and \`systemctl restart\` after an update; the next worker takes them over. A stop ends them by the worker itself.
KillMode=process
RestartKillSignal=${leaveSignal}
# A stopping worker saves the work of its agents first.
TimeoutStopSec=180
# An agent that needs too much memory must not take the worker and the other agents with it.
OOMPolicy=continue
# Agents and their builds count as the service's; what systemd allows to one daemon is little for many of them.
TasksMax=infinity
SyslogIdentifier=oz-agent-worker

[Install]
WantedBy=${wantedBy(isUsers)}
`
}

/** Lines for `EnvironmentFile=`, whose quotes are the shell's. */
export function environmentFileText(values: Record<string, string>): string {
  return Object.entries(values)
    .map(([name, value]) => `${name}="${value.replaceAll(/["\\`$]/g, '\\$&')}"\n`)
    .join('')
}

/** `$` would name a variable in a command line, but nowhere else. */
function quoteArgument(text: string): string {
  return quote(escapeSpecifiers(text).replaceAll('$', '$$$$'))
}

function quote(text: string): string {
  return /^[\w./:=@,+-]+$/.test(text) ? text : `"${text.replaceAll(/["\\]/g, '\\$&').replaceAll('\n', '\\n')}"`
}

function escapeSpecifiers(text: string): string {
  return text.replaceAll('%', '%%')
}

/** By whose start the service is started. */
export function wantedBy(isUsers: boolean): string {
  return isUsers ? 'default.target' : 'multi-user.target'
}
