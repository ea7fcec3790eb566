export { runAgent } from './agent.ts'
export { type AgentEnvironment, readAgentEnvironment } from './agent-environment.ts'
export type { RunAgentOptions, RunAgentResult } from './agent-options.ts'
