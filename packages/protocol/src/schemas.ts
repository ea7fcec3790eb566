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
export { ambientAgentConfig, cloudEnvironmentConfig, unsupportedConfigKeys } from './agent-config.ts'
export { agentManifest } from './agent-manifest.ts'
export { listAgentsQuery, listAgentsResponse } from './agents.ts'
export {
  apiKeyItem,
  apiKeyScopes,
  createApiKeyRequest,
  createApiKeyResponse,
  listApiKeysResponse,
  whoami,
} from './api-keys.ts'
export {
  artifactItem,
  artifactResponse,
  artifactTypes,
  uploadArtifactQuery,
  uploadArtifactResponse,
} from './artifacts.ts'
export {
  downloadAttachmentsRequest,
  downloadAttachmentsResponse,
  handoffAttachmentsResponse,
  prepareAttachmentsRequest,
  prepareAttachmentsResponse,
  uploadAttachmentResponse,
} from './attachments.ts'
export {
  conversationRedirect,
  conversationResponse,
  conversationTitle,
  forkConversationRequest,
  forkConversationResponse,
  renameConversationRequest,
  sessionRedirect,
} from './conversations.ts'
export {
  cloudEnvironment,
  createEnvironmentRequest,
  deleteEnvironmentResponse,
  listEnvironmentsQuery,
  listEnvironmentsResponse,
} from './environments.ts'
export { listEventsQuery, listEventsResponse, sessionEvent, sessionEventTypes, setupSteps } from './events.ts'
export {
  checkJoinTokenResponse,
  createJoinTokenRequest,
  createJoinTokenResponse,
  joinWorkerRequest,
  joinWorkerResponse,
  workerJoinPath,
  workerJoinTokensPath,
} from './join-tokens.ts'
export { listModelsResponse, modelInfo } from './models.ts'
export { problem } from './problem.ts'
export {
  pollRunEventsQuery,
  pollRunEventsResponse,
  reportEventRequest,
  reportEventResponse,
  runEvent,
  streamRunEventsQuery,
} from './run-events.ts'
export {
  fullMessage,
  listMessagesQuery,
  messageHeader,
  sendMessageRequest,
  sendMessageResponse,
} from './run-messages.ts'
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
  startLocalRunRequest,
  startLocalRunResponse,
  whyResponse,
  workspaceQuery,
  workspaceResponse,
} from './runs.ts'
export {
  maxWorkerFrames,
  openWorkerChannelQuery,
  serverMessage,
  taskAssignment,
  workerChannelPath,
  workerCloseCodes,
  workerFramesRequest,
  workerFramesResponse,
  workerMessage,
  workerProtocolHeader,
  workerProtocolVersion,
  workerSocketPath,
} from './worker-socket.ts'
export { connectedWorkersResponse, drainWorkerResponse, listWorkersResponse, workerItem } from './workers.ts'
