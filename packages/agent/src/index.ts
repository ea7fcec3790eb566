export { type RunAgentResult, runAgent } from './agent.ts'
export { type AgentEnvironment, readAgentEnvironment } from './agent-environment.ts'
export type { RunAgentOptions } from './agent-options.ts'
