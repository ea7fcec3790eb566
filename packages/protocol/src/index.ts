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
  FoundSkill,
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
export {
  agentChannelPaths,
  agentProtocolVersion,
  leaseLostExitCode,
  maxBatchBytes,
  maxBatchEvents,
  maxSkillBytes,
  maxSkills,
  maxSkillsBytes,
  maxTurnMessages,
} from './agent-channel-paths.ts'
export type { AmbientAgentConfig, CloudEnvironmentConfig, SourceRepo } from './agent-config.ts'
export type { AgentManifest, BundleFile } from './agent-manifest.ts'
export { type AgentPlatform, agentFolder, agentPlatforms } from './agent-platforms.ts'
export type { ListAgentsQuery, ListAgentsResponse } from './agents.ts'
export type { ApiKey, ApiKeyScope, CreateApiKeyRequest, CreateApiKeyResponse, Whoami } from './api-keys.ts'
export type {
  ArtifactItem,
  ArtifactResponse,
  ArtifactType,
  UploadArtifactQuery,
  UploadArtifactResponse,
} from './artifacts.ts'
export {
  maxArtifactBytes,
  maxAttachmentBytes,
  maxAttachments,
  maxAttachmentsOfRun,
  maxInlineAttachmentsBytes,
} from './attachment-limits.ts'
export type {
  AttachmentInput,
  PrepareAttachmentsRequest,
  PrepareAttachmentsResponse,
  RunAttachment,
  UploadAttachmentResponse,
} from './attachments.ts'
export {
  type ApiClient,
  ApiError,
  type ApiFetch,
  createApiClient,
  isApiError,
  type ListRunsParams,
  readAnswer,
  runScopeHeader,
} from './client.ts'
export type {
  Conversation,
  ConversationContentBlock,
  ConversationMessage,
  ConversationStep,
  ConversationTitle,
  ForkedConversation,
} from './conversations.ts'
export { databaseAwayCodes } from './database-errors.ts'
export { parseDuration } from './duration.ts'
export type { CloudEnvironment, CreateEnvironmentRequest, ListEnvironmentsQuery } from './environments.ts'
export { type ErrorSpec, type PlatformErrorCode, platformErrorCodes } from './error-spec.ts'
export { AppError, describeError, type ErrorCode, type ErrorDetails, errorSpecs, messageOf } from './errors.ts'
export type {
  ListEventsResponse,
  ModelUsage,
  SavedRepository,
  SessionEvent,
  SessionEventData,
  SessionEventType,
} from './events.ts'
export {
  type AnyFailureReason,
  type FailureReason,
  failureReasonOf,
  failureReasons,
  failureSpec,
  type OwnFailureReason,
  ownFailureReasons,
  type ReportedFailureReason,
} from './failure-reasons.ts'
export type {
  CheckJoinTokenResponse,
  CreateJoinTokenRequest,
  CreateJoinTokenResponse,
  JoinWorkerRequest,
  JoinWorkerResponse,
} from './join-tokens.ts'
export type { ListModelsResponse, ModelInfo } from './models.ts'
export { operatorErrors } from './operator-errors.ts'
export type { Problem } from './problem.ts'
export { addressForm, addressForms, repositoriesOf, repositoryAddress, safeDecode } from './repositories.ts'
export { requestErrors } from './request-errors.ts'
export { isReservedVariable } from './reserved-variables.ts'
export { runErrors } from './run-errors.ts'
export type { ReportEventRequest, RunEvent, RunEventType } from './run-events.ts'
export type {
  FullMessage,
  ListMessagesQuery,
  MessageHeader,
  SendMessageRequest,
  SendMessageResponse,
} from './run-messages.ts'
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
  RunMode,
  RunSource,
  SavedWorkspace,
  StartLocalRunRequest,
  StartLocalRunResponse,
  WaterfallStep,
  Why,
} from './runs.ts'
export type { Scope } from './scope.ts'
export { parseShare, uniteShares } from './share-text.ts'
export type { Share } from './shares.ts'
export { isUuid } from './uuid.ts'
export type {
  ExecutionRef,
  ServerMessage,
  TaskAssignment,
  WorkerFramesRequest,
  WorkerFramesResponse,
  WorkerMessage,
} from './worker-socket.ts'
export type { DrainWorkerResponse, ListWorkersResponse, Worker } from './workers.ts'
