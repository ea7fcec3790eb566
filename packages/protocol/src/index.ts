export {
  type AgentCommand,
  type AgentControlData,
  type AgentEvent,
  type AgentEventData,
  type AgentEventType,
  type AgentLimits,
  ackCommandsRequest,
  agentChannelPaths,
  agentControlData,
  agentProtocolVersion,
  agentSessionEventTypes,
  blobResponse,
  type EventBatch,
  type EventBatchResponse,
  eventBatch,
  type HelloRequest,
  type HelloResponse,
  helloRequest,
  type ModelAccess,
  maxBatchBytes,
  maxBatchEvents,
  type NumberedEvent,
} from './agent-channel.ts'
export {
  type AmbientAgentConfig,
  ambientAgentConfig,
  type CloudEnvironmentConfig,
  cloudEnvironmentConfig,
  repositoriesOf,
  type SourceRepo,
} from './agent-config.ts'
export {
  type ApiKey,
  type ApiKeyScope,
  apiKeyItem,
  apiKeyScopes,
  type CreateApiKeyRequest,
  type CreateApiKeyResponse,
  createApiKeyRequest,
  createApiKeyResponse,
  listApiKeysResponse,
  type Whoami,
  whoami,
} from './api-keys.ts'
export {
  type ApiClient,
  ApiError,
  type ApiFetch,
  createApiClient,
  isApiError,
  type ListRunsParams,
  readAnswer,
} from './client.ts'
export { type ErrorSpec, type PlatformErrorCode, platformErrorCodes } from './error-spec.ts'
export { AppError, describeError, type ErrorCode, type ErrorDetails, errorSpecs } from './errors.ts'
export {
  type ListEventsResponse,
  listEventsQuery,
  listEventsResponse,
  type SavedRepository,
  type SessionEvent,
  type SessionEventData,
  type SessionEventType,
  sessionEvent,
  sessionEventTypes,
  setupSteps,
} from './events.ts'
export { type FailureReason, failureReasonOf, failureReasons, failureSpec, lostExecution } from './failure-reasons.ts'
export { type ListModelsResponse, listModelsResponse, type ModelInfo, modelInfo } from './models.ts'
export { operatorErrors } from './operator-errors.ts'
export { type Problem, problem } from './problem.ts'
export { requestErrors } from './request-errors.ts'
export { runErrors } from './run-errors.ts'
export {
  type ExecutionState,
  executionStates,
  isLive,
  isTerminal,
  mayFollow,
  type RunState,
  runCan,
  runStates,
  type TurnOutcome,
  turnOutcomes,
} from './run-state.ts'
export {
  type CreateRunRequest,
  type CreateRunResponse,
  createRunRequest,
  createRunResponse,
  type Execution,
  executionItem,
  executionLocations,
  type ListRunsQuery,
  type ListRunsResponse,
  listExecutionsResponse,
  listRunsQuery,
  listRunsResponse,
  maxPromptBytes,
  type Run,
  type RunSource,
  runItem,
  runSources,
  type SavedWorkspace,
  type WaterfallStep,
  type Why,
  whyResponse,
  workspaceResponse,
} from './runs.ts'
export {
  type ServerMessage,
  serverMessage,
  type TaskAssignment,
  taskAssignment,
  type WorkerMessage,
  workerCloseCodes,
  workerMessage,
  workerProtocolHeader,
  workerProtocolVersion,
  workerSocketPath,
} from './worker-socket.ts'
export { connectedWorkersResponse, listWorkersResponse, type Worker, workerItem } from './workers.ts'
