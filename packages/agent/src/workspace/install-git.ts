import { type ExecFileException, execFile } from 'node:child_process'
import { gitProgram, isOnPath } from '@openoz/machine'
import type { EventSink } from '../event-sink.ts'
import { shortened } from '../live-output.ts'
import { setupStep } from '../setup-step.ts'
import { gitMissing } from './git.ts'

/** Of a mirror that is far away; the package and what it needs are some 20 MB. */
const timeoutMs = 120_000

/** In the order in which they are looked for: an image has one. Each command is one argument list, without a shell. */
const managers: Record<string, string[][]> = {
  'apt-get': [
    ['update', '-qq'],
    ['install', '-y', '-qq', '--no-install-recommends', 'git', 'ca-certificates'],
  ],
  apk: [['add', '--no-cache', 'git', 'ca-certificates']],
  dnf: [['install', '-y', '-q', 'git-core']],
  microdnf: [['install', '-y', 'git-core']],
  zypper: [['--non-interactive', '--quiet', 'install', 'git-core']],
}

/**
 * Where neither the image nor the agent bundle has git: installs it by the image's package manager, as a step that the run shows. Only in a container,
 * which is the run's own, and only as its root. Rejects with `git_missing`, which names what was tried, or with the signal's reason.
 */
export async function provideGit({ env, sink, signal }: ProvideGit): Promise<void> {
  if (gitProgram(env) || !isContainer(env)) return
  await setupStep(sink, { step: 'workspace', title: 'Install git' }, async () => {
    const problem = await install(env, signal)
    if (gitProgram(env)) return
    signal.throwIfAborted()
    throw gitMissing({ tried: `: neither the image nor the agent bundle has it, and ${problem}` })
  })
}

interface ProvideGit {
  env: NodeJS.ProcessEnv
  sink: EventSink
  signal: AbortSignal
}

/** Says why there still is no git. */
async function install(env: NodeJS.ProcessEnv, signal: AbortSignal): Promise<string> {
  const [manager, commands] = Object.entries(managers).find(([name]) => isOnPath(name, env.PATH)) ?? []
  if (manager === undefined || commands === undefined) return 'the image has no package manager that is known here'
  if (process.getuid?.() !== 0) return `the task is not root, which ${manager} asks for`
  for (const args of commands) {
    const problem = await run(manager, args, env, signal)
    if (problem !== undefined) return `\`${[manager, ...args].join(' ')}\` failed (${problem})`
  }
  return `${manager} installed none`
}

function run(
  program: string,
  args: string[],
  env: NodeJS.ProcessEnv,
  signal: AbortSignal,
): Promise<string | undefined> {
  const options = { env: { ...env, DEBIAN_FRONTEND: 'noninteractive' }, signal, timeout: timeoutMs, maxBuffer: 1e8 }
  return new Promise((resolve) => {
    execFile(program, args, options, (error: ExecFileException | null, stdout, stderr) => {
      if (!error) return resolve(undefined)
      const said = (stderr.trim() || stdout.trim()).split('\n').at(-1) ?? ''
      resolve(shortened(error.killed ? `no end after ${timeoutMs / 1000} s` : said || error.message, 300))
    })
  })
}

/** On the machine of a direct worker, or of a person, nothing is installed. */
function isContainer({ OZ_WORKER_BACKEND: backend }: NodeJS.ProcessEnv): boolean {
  return backend !== undefined && backend !== 'direct'
}
