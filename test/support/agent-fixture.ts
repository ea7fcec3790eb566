import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type RunAgentOptions, runAgent } from '@openoz/agent'
import type { Continuation, HelloResponse } from '@openoz/protocol'
import { pino } from 'pino'
import {
  type AgentChannelServer,
  type AgentChannelServerOptions,
  startAgentChannelServer,
} from './agent-channel-server.ts'
import { type ScriptedModel, type ScriptedModelOptions, startScriptedModel } from './scripted-model.ts'

/** One agent in this process, with a scripted model and a control plane of its own, in folders that go away. */
export interface AgentFixture extends AsyncDisposable {
  server: AgentChannelServer
  model: ScriptedModel
  folder: string
  workspace: string
  spool: string
  env: NodeJS.ProcessEnv
  stop: AbortController
  run(options?: Partial<RunAgentOptions>): ReturnType<typeof runAgent>
  /** The same as a process of its own. */
  spawn(): ChildProcess
}

export interface AgentFixtureOptions extends ScriptedModelOptions, Omit<AgentChannelServerOptions, 'model'> {
  message?: string
  env?: NodeJS.ProcessEnv
  workspace?: string
  spool?: string
}

export async function startAgentFixture(options: AgentFixtureOptions = {}): Promise<AgentFixture> {
  const folder = mkdtempSync(join(tmpdir(), 'oz-agent-test-'))
  const workspace = options.workspace ?? join(folder, 'workspace')
  const home = join(folder, 'home')
  for (const made of [workspace, home]) mkdirSync(made, { recursive: true })
  const model = await startScriptedModel(options)
  const { message } = options
  const turn = { turn_id: crypto.randomUUID(), number: 1, message: message ?? 'Do it.', messages: [] }
  const server = await startAgentChannelServer({
    hello: { turn, ...options.hello },
    limits: options.limits,
    nextTurn: options.nextTurn,
    more: options.more,
    model: model.handle,
  })
  const env: NodeJS.ProcessEnv = {
    PATH: process.env.PATH,
    HOME: home,
    TMPDIR: folder,
    OZ_EXECUTION_ID: server.hello.execution_id,
    OZ_WORKER_BACKEND: 'direct',
    ...options.env,
  }
  const stop = new AbortController()
  const spool = options.spool ?? join(folder, 'spool')
  const run = (more: Partial<RunAgentOptions> = {}) =>
    runAgent({
      serverUrl: server.url,
      executionToken: server.token,
      spoolDir: spool,
      workingDirectory: workspace,
      log: pino({ level: process.env.OZ_TEST_LOG ?? 'silent' }),
      signal: stop.signal,
      env,
      ...more,
    })
  const spawnAgent = () => {
    const tokenFile = join(folder, `token-${crypto.randomUUID()}`)
    writeFileSync(tokenFile, server.token, { mode: 0o600 })
    const agentEnv = {
      ...env,
      OZ_EXECUTION_TOKEN_FILE: tokenFile,
      OZ_SPOOL_DIR: spool,
      OZ_SERVER_URL: server.url,
      OZ_TEST_LOG: process.env.OZ_TEST_LOG,
    }
    const main = join(import.meta.dirname, 'agent-main.ts')
    return spawn(process.execPath, [main], { cwd: workspace, env: agentEnv, stdio: ['ignore', 'ignore', 'inherit'] })
  }
  return {
    server,
    model,
    spawn: spawnAgent,
    folder,
    workspace,
    spool,
    env,
    stop,
    run,
    async [Symbol.asyncDispose]() {
      await server.close()
      await model.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** An agent that goes on where another one was: with what the control plane has of it. */
export async function startNextAgent(
  first: AgentFixture,
  { reason, isStale = false }: { reason: Continuation['reason']; isStale?: boolean },
  options: AgentFixtureOptions,
): Promise<AgentFixture> {
  const { run_id, config, turn } = first.server.hello
  const last = (type: string) => (first.server.eventsOf(type).at(-1)?.data ?? null) as never
  const hello: Partial<HelloResponse> = {
    run_id,
    config,
    checkpoint: last('checkpoint'),
    workspace: last('workspace_saved'),
    continues: { reason, is_workspace_stale: isStale },
    ...(reason === 'retry' ? { attempt: 2, turn } : {}),
    ...options.hello,
  }
  const second = await startAgentFixture({ ...options, hello })
  for (const [id, bytes] of first.server.blobs) second.server.blobs.set(id, bytes)
  return second
}

export function git(folder: string, ...args: string[]): string {
  return execFileSync('git', ['-c', 'user.name=Test', '-c', 'user.email=test@example.com', ...args], {
    cwd: folder,
    encoding: 'utf8',
    env: { PATH: process.env.PATH, GIT_CONFIG_GLOBAL: '/dev/null' },
    stdio: ['ignore', 'pipe', 'pipe'],
  }).trimEnd()
}

/** A repository with one commit of these files, on the branch `main`. */
export function makeRepository(folder: string, files: Record<string, string>): string {
  mkdirSync(folder, { recursive: true })
  git(folder, 'init', '--quiet', '--initial-branch=main')
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(join(folder, name, '..'), { recursive: true })
    writeFileSync(join(folder, name), content)
  }
  git(folder, 'add', '--all')
  git(folder, 'commit', '--quiet', '--allow-empty', '--message', 'Begin')
  return folder
}
