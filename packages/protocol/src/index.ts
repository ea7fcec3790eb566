export type {
  AgentCommand,
  AgentControlData,
  AgentEvent,
  AgentEventData,
  AgentEventType,
  AgentLimits,
  BlobResponse,
  Continuation,
  EventBatch,
  EventBatchResponse,
  HelloRequest,
  HelloResponse,
  ModelAccess,
  ModelWire,
  NextTurnRequest,
  NextTurnResponse,
  NumberedEvent,
  TurnInput,
  TurnMessage,
} from './agent-channel.ts'
export { agentChannelPaths, agentProtocolVersion, maxBatchBytes, maxBatchEvents } from './agent-channel-paths.ts'
export type { AmbientAgentConfig, CloudEnvironmentConfig, SourceRepo } from './agent-config.ts'
export type { ApiKey, ApiKeyScope, CreateApiKeyRequest, CreateApiKeyResponse, Whoami } from './api-keys.ts'
export {
  type ApiClient,
  ApiError,
  type ApiFetch,
  createApiClient,
  isApiError,
  type ListRunsParams,
  readAnswer,
} from './client.ts'
export type {
  Conversation,
  ConversationContentBlock,
  ConversationMessage,
  ConversationStep,
} from './conversations.ts'
export { type ErrorSpec, type PlatformErrorCode, platformErrorCodes } from './error-spec.ts'
export { AppError, describeError, type ErrorCode, type ErrorDetails, errorSpecs } from './errors.ts'
export type {
  ListEventsResponse,
  ModelUsage,
  SavedRepository,
  SessionEvent,
  SessionEventData,
  SessionEventType,
} from './events.ts'
export { type FailureReason, failureReasonOf, failureReasons, failureSpec, lostExecution } from './failure-reasons.ts'
export type { ListModelsResponse, ModelInfo } from './models.ts'
export { operatorErrors } from './operator-errors.ts'
export type { Problem } from './problem.ts'
export { repositoriesOf } from './repositories.ts'
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
export type {
  CreateRunRequest,
  CreateRunResponse,
  Execution,
  FollowUpMode,
  FollowUpRequest,
  FollowUpResponse,
  ForkRunRequest,
  ListRunsQuery,
  ListRunsResponse,
  Run,
  RunSource,
  SavedWorkspace,
  WaterfallStep,
  Why,
} from './runs.ts'
export type { ServerMessage, TaskAssignment, WorkerMessage } from './worker-socket.ts'
export type { Worker } from './workers.ts'
