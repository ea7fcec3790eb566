export { fullJitterMs, sleep } from './backoff.ts'
export { bootClockMs } from './boot-clock.ts'
export { bundleFolder } from './bundle-folder.ts'
export { type ChunkMerger, type ChunkMergerOptions, createChunkMerger } from './chunk-merger.ts'
export { cloneProblem } from './clone-failure.ts'
export { type DialFailureReason, dialFailureReason, dialFailureReasons, toDialError } from './dial-failure.ts'
export { createDialer, type Dialer, type DialerOptions } from './dialer.ts'
export { isDiskFull } from './disk-full.ts'
export { createEventPost, type EventPost } from './event-post.ts'
export {
  drainSpool,
  type EventSender,
  type EventSenderOptions,
  type SenderEnd,
  startEventSender,
} from './event-sender.ts'
export type { EventStreamOptions, StreamEvent } from './event-stream.ts'
export { type FolderLock, isLockName, lockFolder } from './folder-lock.ts'
export { gitEnvironment, withoutRepository } from './git-environment.ts'
export { type GitProgram, gitProgram, isOnPath } from './git-program.ts'
export { restoreImageVariables } from './image-variables.ts'
export { inGroups } from './in-groups.ts'
export { problemOf, readLogEntry } from './log-entry.ts'
export { createMasker, type Masker, type MaskingStream, maskText } from './masking.ts'
export { nodeCommand } from './node-command.ts'
export { countOomKills, hasOomKillSince } from './oom-kills.ts'
export { readPrivateFile, writePrivateFile } from './private-file.ts'
export {
  identifyProcess,
  isSameProcess,
  type ProcessIdentity,
  processStartOf,
} from './process-identity.ts'
export { findMarked, type ProcessInfo } from './process-list.ts'
export {
  endProcessTree,
  executionIdVariable,
  findProcesses,
  type ProcessEnd,
  type ProcessSelection,
} from './process-tree.ts'
export { proxyFor, proxySecrets } from './proxy-environment.ts'
export { mirrorName, type RepositoryAddress, repositoryAddress } from './repository-address.ts'
export { judgeSendFailure, RetryLater, readAnswerOrRetryLater, type SendDecision } from './send-failure.ts'
export { type CommandShell, commandShell, ownTree, withOneOutput } from './shell.ts'
export {
  isSpoolFileName,
  maxSegmentBytes,
  openSpool,
  type PendingLimits,
  type Spool,
  type SpoolOptions,
  type UnnumberedEvent,
} from './spool.ts'
export { type UserFolders, userFolders } from './user-folders.ts'
export type { WebSocketOptions } from './web-socket.ts'
