/** Where an agent bundle is mounted, read-only, and what its programs are made for until they are relocated. */
export const agentFolder = '/agent'

/** What there are bundles for, as container engines name it. */
export const agentPlatforms = ['linux/amd64', 'linux/arm64'] as const
export type AgentPlatform = (typeof agentPlatforms)[number]
