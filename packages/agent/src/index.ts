export { type RunAgentOptions, type RunAgentResult, runAgent } from './agent.ts'
export { type AgentEnvironment, readAgentEnvironment } from './agent-environment.ts'
