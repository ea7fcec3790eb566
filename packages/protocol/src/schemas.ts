/**
 * What checks messages, and the values that stand beside the checks. An entry of its own, because making the schemas takes every start
 * 40 ms: whoever only speaks the protocol (an agent, most commands) gets by with the types, errors and tables of `index.ts`.
 */
export {
  ackCommandsRequest,
  agentControlData,
  agentSessionEventTypes,
  blobResponse,
  eventBatch,
  helloRequest,
  modelWires,
  nextTurnRequest,
} from './agent-channel.ts'
export { ambientAgentConfig, cloudEnvironmentConfig } from './agent-config.ts'
export {
  apiKeyItem,
  apiKeyScopes,
  createApiKeyRequest,
  createApiKeyResponse,
  listApiKeysResponse,
  whoami,
} from './api-keys.ts'
export { conversationResponse } from './conversations.ts'
export { listEventsQuery, listEventsResponse, sessionEvent, sessionEventTypes, setupSteps } from './events.ts'
export { listModelsResponse, modelInfo } from './models.ts'
export { problem } from './problem.ts'
export {
  createRunRequest,
  createRunResponse,
  executionItem,
  executionLocations,
  followUpModes,
  followUpRequest,
  followUpResponse,
  forkRunRequest,
  listExecutionsResponse,
  listRunsQuery,
  listRunsResponse,
  maxPromptBytes,
  runItem,
  runSources,
  whyResponse,
  workspaceResponse,
} from './runs.ts'
export {
  serverMessage,
  taskAssignment,
  workerCloseCodes,
  workerMessage,
  workerProtocolHeader,
  workerProtocolVersion,
  workerSocketPath,
} from './worker-socket.ts'
export { connectedWorkersResponse, listWorkersResponse, workerItem } from './workers.ts'
