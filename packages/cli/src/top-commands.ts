import type { Command } from 'commander'

/**
 * A command's module is loaded when it was asked for: the agent that a worker starts, and `--help`, need not wait for a control plane's code to
 * load.
 */
export interface TopCommand {
  name: string
  alias?: string
  summary: string
  register: (program: Command) => Promise<void>
}

export const topCommands: readonly TopCommand[] = [
  {
    name: 'up',
    summary: 'start control plane and worker on this machine',
    register: async (program) => (await import('./commands/up.ts')).registerUp(program),
  },
  {
    name: 'server',
    summary: 'start the control plane alone',
    register: async (program) => (await import('./commands/server.ts')).registerServer(program),
  },
  {
    name: 'agent',
    summary: 'start agents',
    register: async (program) => (await import('./commands/agent.ts')).registerAgent(program),
  },
  {
    name: 'run',
    alias: 'task',
    summary: 'list, watch, steer, cancel and collect runs',
    register: async (program) => (await import('./commands/run.ts')).registerRun(program),
  },
  {
    name: 'environment',
    alias: 'e',
    summary: 'keep what runs work in',
    register: async (program) => (await import('./commands/environment.ts')).registerEnvironment(program),
  },
  {
    name: 'artifact',
    summary: 'read and download what runs made for people',
    register: async (program) => (await import('./commands/artifact.ts')).registerArtifact(program),
  },
  {
    name: 'model',
    summary: 'list the models that can be used now',
    register: async (program) => (await import('./commands/model.ts')).registerModel(program),
  },
  {
    name: 'worker',
    summary: 'list connected workers',
    register: async (program) => (await import('./commands/worker.ts')).registerWorker(program),
  },
  {
    name: 'api-key',
    summary: 'list, create and expire API keys',
    register: async (program) => (await import('./commands/api-key.ts')).registerApiKey(program),
  },
  {
    name: 'login',
    summary: 'save address and key of a control plane',
    register: async (program) => (await import('./commands/login.ts')).registerLogin(program),
  },
  {
    name: 'logout',
    summary: 'forget the saved login',
    register: async (program) => (await import('./commands/login.ts')).registerLogout(program),
  },
  {
    name: 'whoami',
    summary: 'say who the API key belongs to',
    register: async (program) => (await import('./commands/whoami.ts')).registerWhoami(program),
  },
  {
    name: 'doctor',
    summary: 'check this machine and the control plane',
    register: async (program) => (await import('./commands/doctor.ts')).registerDoctor(program),
  },
  {
    name: 'backup',
    summary: 'write everything that the control plane keeps into one encrypted file',
    register: async (program) => (await import('./commands/backup.ts')).registerBackup(program),
  },
  {
    name: 'restore',
    summary: 'put a backup into an empty database',
    register: async (program) => (await import('./commands/restore.ts')).registerRestore(program),
  },
  {
    name: 'chaos',
    summary: 'kill parts of a private copy while runs are at work, and check what is left',
    register: async (program) => (await import('./commands/chaos.ts')).registerChaos(program),
  },
  {
    name: 'bundle',
    summary: 'make and check the folder that agents in containers run from',
    register: async (program) => (await import('./commands/bundle.ts')).registerBundle(program),
  },
  {
    name: 'completions',
    summary: 'print what completes this command line in a shell',
    register: async (program) => (await import('./commands/completions.ts')).registerCompletions(program, loadProgram),
  },
]

/** The whole program, with every command loaded. The environment is not asked: it is the same for everybody. */
export async function loadProgram(): Promise<Command> {
  const { createProgram } = await import('./global-options.ts')
  const program = createProgram({})
  for (const { register } of topCommands) await register(program)
  return program
}
