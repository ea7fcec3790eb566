export { type RunAgentResult, runAgent } from './agent.ts'
export { type AgentEnvironment, readAgentEnvironment } from './agent-environment.ts'
export type { RunAgentOptions } from './agent-options.ts'
export { type SaveKeptWorkOptions, type SaveKeptWorkResult, saveKeptWork } from './save-kept-work.ts'
