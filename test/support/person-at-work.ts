import type { ChildProcess } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { identifyProcess } from '@openoz/machine'
import { startOz } from '../../packages/cli/src/test-support/run-program.ts'
import { type ControlPlane, startControlPlane } from './control-plane.ts'
import { until } from './poll.ts'
import { type ScriptedModel, type ScriptedModelOptions, startScriptedModel } from './scripted-model.ts'

/** Somebody with a key, a folder and the command line: what is needed for `oz agent run`. */
export interface PersonAtWork extends AsyncDisposable {
  cp: ControlPlane
  model: ScriptedModel
  /** Of this person's home and folders; goes away. */
  folder: string
  workspace: string
  env: NodeJS.ProcessEnv
  oz(args: string[], options?: { cwd?: string; env?: NodeJS.ProcessEnv; input?: string }): OzProcess
}

export interface OzProcess {
  child: ChildProcess
  /** So far. */
  readonly stdout: string
  readonly stderr: string
  ended: Promise<{ exitCode: number | null; stdout: string; stderr: string }>
  /** Waits until stdout has it, and answers its first group. */
  says(pattern: RegExp, timeoutMs?: number): Promise<string>
  objects(): Record<string, unknown>[]
}

export async function startPersonAtWork(
  options: ScriptedModelOptions & { serverEnv?: Record<string, string> } = {},
): Promise<PersonAtWork> {
  const folder = mkdtempSync(join(tmpdir(), 'oz-person-'))
  const workspace = join(folder, 'workspace')
  for (const name of ['workspace', 'home']) mkdirSync(join(folder, name))
  const model = await startScriptedModel(options)
  const cp = await startControlPlane({
    env: { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1`, ...options.serverEnv },
  })
  const env: NodeJS.ProcessEnv = {
    PATH: process.env.PATH,
    HOME: join(folder, 'home'),
    TMPDIR: folder,
    GIT_CONFIG_GLOBAL: '/dev/null',
    WARP_API_KEY: cp.adminKey,
    WARP_SERVER_ROOT_URL: cp.url,
  }
  const running = new Set<OzProcess>()
  return {
    cp,
    model,
    folder,
    workspace,
    env,
    oz(args, { cwd = workspace, env: more = {}, input } = {}) {
      const started = startProcess(args, { cwd, env: { ...env, ...more }, input })
      running.add(started)
      void started.ended.then(() => running.delete(started))
      return started
    },
    async [Symbol.asyncDispose]() {
      for (const { child, ended } of running) {
        child.kill('SIGKILL')
        await ended
      }
      await model.close()
      await cp[Symbol.asyncDispose]()
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
    },
  }
}

function startProcess(
  args: string[],
  { cwd, env, input }: { cwd: string; env: NodeJS.ProcessEnv; input: string | undefined },
): OzProcess {
  const program = startOz(args, env, { cwd })
  const { child, ended } = program
  child.stdin?.end(input ?? '')
  return {
    child,
    ended,
    get stdout() {
      return program.stdout
    },
    get stderr() {
      return program.stderr
    },
    async says(pattern, timeoutMs = 20_000) {
      await until(() => pattern.test(program.stdout) || child.exitCode !== null, Boolean, { timeoutMs }).catch(() => {})
      const found = pattern.exec(program.stdout)
      if (!found) throw new Error(`it did not say ${pattern}:\n${program.stdout}\n${program.stderr}`)
      return found[1] ?? found[0]
    },
    objects: () =>
      program.stdout
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as Record<string, unknown>),
  }
}

/** What has ended and was not reaped does not run. */
export const isRunning = (pid: number) => identifyProcess(pid) !== undefined
/** How a run says its id to people. */
export const runIdLine = /^Run ID: (\S+)$/m
/** A model's answer that runs a command. */
export const command = (text: string) => ({ toolCalls: [{ name: 'run_command', arguments: { command: text } }] })
