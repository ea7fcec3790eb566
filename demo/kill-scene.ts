import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { openConnection } from '@openoz/cli'
import { endProcessTree } from '@openoz/machine'
import type { ListEventsResponse } from '@openoz/protocol'
import { until } from '../test/support/poll.ts'
import { type ModelRequest, startScriptedModel } from '../test/support/scripted-model.ts'
import { makeDemoFolder, makeSampleRepository } from './demo-folder.ts'
import { type ChatMessage, textOf } from './scripted-conversation.ts'
import { nextStep } from './scripted-steps.ts'
import { demoTasks } from './tasks.ts'

const run = promisify(execFile)
const program = (name: string) => fileURLToPath(new URL(`../packages/cli/bin/${name}.mjs`, import.meta.url))
const apiKey = 'wk-for-the-tests-of-killed-workers-and-nothing-else'

/** Short ones, so that a machine which is gone is missed within seconds. */
const leases = { OZ_LEASE_UNREACHABLE: '1s', OZ_LEASE_STOP: '7s', OZ_LEASE_LOST: '9s' }

/** Said at the end of a task: something to leave that is in no commit. */
export const leaveDrafts = 'Leave what you think in drafts/, uncommitted.'
/** Said at the end of a follow-up. */
export const lookFirst = 'Look first at what is there.'

const draftCommand = [
  'echo "Not said yet." >> README.md',
  'mkdir drafts',
  'echo "What about tips?" > drafts/ideas.txt',
  'printf "#!/bin/sh\\nexec node --test\\n" > drafts/check.sh',
  'chmod 755 drafts/check.sh',
  'ln -s ideas.txt drafts/latest',
  'dd if=/dev/zero of=drafts/large bs=1M count=3 2>/dev/null',
].join(' && ')
const lookCommand = [
  'git log --format=%s',
  'git status --porcelain --untracked-files=all',
  'tail -n 1 README.md',
  'cat drafts/latest',
  'readlink drafts/latest',
  'wc -c < drafts/large',
  'test -x drafts/check.sh && echo executable',
].join('; ')

/** What the look must find of the drafts, however the commits are. */
export const foundDrafts = 'Not said yet.\nWhat about tips?\nideas.txt\n3145728\nexecutable\n'

interface Step {
  text: string
  call?: { tool: string; input: object }
}

/** The demo's script for the task that was given last, with a look before it and drafts after it where they were asked for. */
function stepFor(messages: ChatMessage[]): Step {
  const asked = (text: string) =>
    messages.findLastIndex((message) => message.role === 'user' && textOf(message).includes(text))
  const hasRun = (command: string) => (message: ChatMessage) =>
    message.tool_calls?.some((call) => JSON.parse(call.function.arguments).command === command) ?? false
  const look = asked(lookFirst)
  if (look >= 0 && !messages.slice(look).some(hasRun(lookCommand)))
    return { text: 'I look at what is there.', call: { tool: 'run_command', input: { command: lookCommand } } }

  const prompts = Object.values(demoTasks).map(({ prompt }) => prompt)
  const since = messages.slice(Math.max(0, ...prompts.map(asked)))
  const isExtra = (message: ChatMessage) => hasRun(lookCommand)(message) || hasRun(draftCommand)(message)
  const extra = new Set(since.filter(isExtra).flatMap(({ tool_calls = [] }) => tool_calls.map(({ id }) => id)))
  const own = since.filter((message) => !isExtra(message) && !extra.has(message.tool_call_id ?? ''))
  const step = nextStep(own)
  const isEnd = !step.call || step.call.tool === 'ask'
  if (isEnd && textOf(since[0]).includes(leaveDrafts) && !since.some(hasRun(draftCommand)))
    return { text: 'A few drafts.', call: { tool: 'run_command', input: { command: draftCommand } } }
  return step
}

/** A model that can be held before its answer to the n-th tool result of a turn. */
async function startModel() {
  const opened = Promise.withResolvers<void>()
  opened.resolve()
  let hold = { atResult: -1, opened }
  const resultsOf = (messages: ChatMessage[]) =>
    messages.slice(messages.findLastIndex(({ role }) => role === 'user')).filter(({ role }) => role === 'tool').length
  const model = await startScriptedModel({
    models: ['scripted-demo'],
    async handler(request: ModelRequest) {
      const messages = request.body.messages as ChatMessage[]
      if (resultsOf(messages) === hold.atResult) await hold.opened.promise
      const { text, call } = stepFor(messages)
      return { text, ...(call ? { toolCalls: [{ name: call.tool, arguments: { ...call.input } }] } : {}) }
    },
  })
  return Object.assign(model, {
    /** From now on the answer to this result waits until the hold is released; `reached` when it has been asked for. */
    holdAt(atResult: number) {
      const before = model.requests.length
      const current = { atResult, opened: Promise.withResolvers<void>() }
      hold = current
      const isHeld = ({ body }: ModelRequest) => resultsOf(body.messages) === atResult
      return {
        reached: () => until(() => model.requests.slice(before).some(isHeld), Boolean, { timeoutMs: 30_000 }),
        release() {
          hold = { atResult: -1, opened }
          current.opened.resolve()
        },
      }
    },
  })
}

/** Control plane and workers as a person starts them, each a process of its own, in folders of their own. */
export async function startScene() {
  const folder = await makeDemoFolder()
  const place = (...names: string[]) => join(folder.private, ...names)
  const home = place('home')
  await mkdir(home)
  const repository = await makeSampleRepository(folder, null)
  const model = await startModel()
  const { PATH, TMPDIR } = process.env
  const ownEnv = { PATH, TMPDIR, HOME: home, XDG_CONFIG_HOME: place('config'), XDG_STATE_HOME: place('xdg-state') }
  const serverEnv = {
    ...ownEnv,
    ...leases,
    OZ_BOOTSTRAP_API_KEY: apiKey,
    OPENAI_API_KEY: 'sk-scripted',
    OPENAI_BASE_URL: `${model.url}/v1`,
  }
  const log = process.env.OZ_TEST_LOG ? 'inherit' : 'ignore'
  const serverArgs = ['server', '--listen', '127.0.0.1:0', '--data-dir', place('data'), '--output-format', 'ndjson']
  const server = spawn(process.execPath, [program('oz'), ...serverArgs], {
    env: serverEnv,
    stdio: ['ignore', 'pipe', log],
  })
  const url = await readyUrl(server)
  const env = { ...ownEnv, OZ_SERVER_URL: url, OZ_API_KEY: apiKey }
  const connection = openConnection({ serverUrl: url, apiKey, env })
  const { client } = connection
  const workers = new Set<ChildProcess>()
  /** Of every run that was looked at. */
  const executionIds = new Set<string>()

  async function executionsOf(runId: string) {
    const { executions } = await client.runs.executions(runId)
    for (const { execution_id: id } of executions) executionIds.add(id)
    return executions
  }

  /** A command as a person types it; rejects with what it said when its exit code is not 0. */
  async function oz(...args: string[]): Promise<string> {
    return (await run(process.execPath, [program('oz'), ...args], { env })).stdout
  }

  return {
    model,
    client,
    executionsOf,
    oz,
    /** What runs clone. */
    source: repository.source,
    /** The result of a run as a person gets it: in a clone of their own, with the branch checked out. */
    async checkOut(runId: string) {
      const clone = place(`clone-of-${runId}`)
      await run('git', ['clone', '--quiet', repository.source, clone])
      await oz('run', 'checkout', runId, '--repo', clone)
      await run('git', ['-C', clone, 'switch', '--quiet', `oz/${runId}`])
      return clone
    },
    /** A worker and the folder of its state: the same name for the next process of a worker, another for another machine. */
    async startWorker(workerId: string, machine: string) {
      const config = place(`${machine}.yaml`)
      await mkdir(place(machine), { recursive: true, mode: 0o711 })
      const direct = {
        oz_path: program('oz'),
        state_dir: place(machine, 'state'),
        workspace_root: place(machine, 'work'),
      }
      await writeFile(config, JSON.stringify({ backend: { direct } }))
      const args = ['--worker-id', workerId, '--backend', 'direct', '--config-file', config, '--drain', 'stop']
      const worker = spawn(process.execPath, [program('oz-agent-worker'), ...args], {
        env,
        stdio: ['ignore', 'ignore', log],
      })
      workers.add(worker)
      await until(client.workers.list, (list) => list.workers.some(({ worker_id: id }) => id === workerId), {
        timeoutMs: 20_000,
      })
      return { process: worker, kill: () => end(worker, 'SIGKILL'), stop: () => end(worker, 'SIGTERM') }
    },
    /** The agent, its shim, its tools: all at once, as if the machine had lost its power. */
    async killExecution(runId: string) {
      const id = (await executionsOf(runId)).at(-1)?.execution_id ?? ''
      await endProcessTree({ marker: `OZ_EXECUTION_ID=${id}` }, 0)
    },
    /** Until its agent has ended the turn, and rests or is gone. */
    async rested(runId: string, state: string) {
      const found = await until(
        () => client.runs.get(runId),
        (one) => one.state === state,
        { timeoutMs: 40_000, everyMs: 50 },
      )
      await until(
        () => executionsOf(runId),
        (list) => !['offered', 'claimed', 'running'].includes(list.at(-1)?.state ?? ''),
        { timeoutMs: 20_000 },
      )
      return found
    },
    async eventsOf(runId: string) {
      const events: ListEventsResponse['events'] = []
      for (let since = 0; ; ) {
        const page = await client.runs.events(runId, { since, limit: 500 })
        events.push(...page.events)
        if (page.events.length < 500) return events
        since = page.next_since
      }
    },
    /** Politely, with their agents. */
    endWorkers,
    executionIds,
    async [Symbol.asyncDispose]() {
      await endWorkers()
      for (const id of executionIds) await endProcessTree({ marker: `OZ_EXECUTION_ID=${id}` }, 0)
      await connection[Symbol.asyncDispose]()
      await end(server, 'SIGTERM')
      await model.close()
      await repository.discard()
      await folder.remove()
    },
  }

  async function endWorkers(): Promise<void> {
    await Promise.all([...workers].map((worker) => end(worker, 'SIGTERM')))
  }

  async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill(signal)
    await ended
    workers.delete(child)
  }
}

/** The address is in the one line that the server prints once it is ready. */
async function readyUrl({ stdout, pid }: ChildProcess): Promise<string> {
  if (!stdout) throw new Error(`process ${pid} has no output to read`)
  let text = ''
  for await (const chunk of stdout.iterator({ destroyOnReturn: false })) {
    text += chunk
    if (text.includes('\n')) break
  }
  stdout.resume()
  const ready = JSON.parse(text.split('\n')[0] ?? '') as { type: string; url: string }
  if (ready.type !== 'server_ready') throw new Error(`the server said ${text}`)
  return ready.url
}

export type Scene = Awaited<ReturnType<typeof startScene>>
