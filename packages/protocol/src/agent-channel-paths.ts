/** What both ends of the agent channel know without reading a message: apart, so that an agent starts without the schemas. */

/** The server speaks this version and the one before. */
export const agentProtocolVersion = 1

export const agentChannelPaths = {
  hello: '/api/v1/agent-channel/hello',
  events: '/api/v1/agent-channel/events',
  nextTurn: '/api/v1/agent-channel/next-turn',
  commands: '/api/v1/agent-channel/commands',
  ackCommands: '/api/v1/agent-channel/commands/ack',
  blobs: '/api/v1/agent-channel/blobs',
} as const

/**
 * EX_TEMPFAIL: what an agent ends with that could not renew its lease and left something undone, or whose hello nobody answered. Workers read it as
 * the failure reason `lease_lost`. A saver of left work ends with it when it should be tried again.
 */
export const leaseLostExitCode = 75

/** 100 events and 4 MiB a batch: an acknowledgement stays quick, and one large tool result still fits. */
export const maxBatchEvents = 100
export const maxBatchBytes = 4 * 1024 * 1024

/** Messages that are said to one turn; its checkpoints and its outcome name those that it took up. */
export const maxTurnMessages = 1000

/** Of one repository; what is more is left out. */
export const maxSkills = 100
/** Of one skill, and of all of a repository together. */
export const maxSkillBytes = 64 * 1024
export const maxSkillsBytes = 256 * 1024
