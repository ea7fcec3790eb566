import type { TaskAssignment } from '@openoz/protocol'

interface LaunchSettings {
  serverRootUrl: string
  sessionSharingServerUrl?: string
  idleOnComplete?: string
  /** File that holds the snapshot's MCP servers. A file and not their JSON: their headers and variables hold secrets, and argv is public. */
  mcpFile?: string
}

/** Arguments of `oz` for a task, in the order that every `oz` of the reference command line takes. Never a prompt, never a secret. */
export function launchArguments(assignment: TaskAssignment, settings: LaunchSettings): string[] {
  const { task, task_id: taskId, additional_oz_args: additional = [] } = assignment
  const snapshot = task.agent_config_snapshot ?? {}
  const harness = snapshot.harness?.type ?? 'oz'
  const isBuiltIn = harness === 'oz'
  const args = ['agent', 'run']
  if (task.owner.Type === 'TEAM') args.push('--share', 'team:edit')
  args.push('--task-id', taskId, '--sandboxed', '--server-root-url', settings.serverRootUrl)
  if (snapshot.model_id !== undefined && isBuiltIn) args.push('--model', snapshot.model_id)
  if (snapshot.skill_spec !== undefined) args.push('--skill', snapshot.skill_spec)
  if (settings.mcpFile !== undefined) args.push('--mcp', settings.mcpFile)
  // The reference always says one of the two; a third-party harness brings its own tools.
  args.push((snapshot.computer_use_enabled ?? isBuiltIn) ? '--computer-use' : '--no-computer-use')
  if (snapshot.harness?.type !== undefined) args.push('--harness', snapshot.harness.type)
  if (snapshot.environment_id !== undefined) args.push('--environment', snapshot.environment_id)
  args.push(...additional)
  args.push('--idle-on-complete', ...idleWindow(snapshot.idle_timeout_minutes, settings.idleOnComplete))
  if (settings.sessionSharingServerUrl !== undefined) {
    args.push('--session-sharing-server-url', settings.sessionSharingServerUrl)
  }
  return args
}

/** The run's word, then the worker's; a bare flag leaves it to the agent. */
function idleWindow(minutes: number | undefined, fallback: string | undefined): string[] {
  if (minutes !== undefined) return [`${minutes}m`]
  return fallback === undefined ? [] : [fallback]
}
