import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { executionIdVariable, findProcesses } from '@openoz/machine'
import { expect, test } from 'vitest'
import { startControlPlane } from './support/control-plane.ts'
import { until } from './support/poll.ts'
import { startScriptedModel } from './support/scripted-model.ts'

/**
 * A real agent that is stopped (`kill -STOP`) in the middle of a command, with its worker process killed: nobody but the shell that it was started from is
 * there to end the command before the run is anybody else's.
 */
const oz = fileURLToPath(new URL('../packages/cli/bin/oz.mjs', import.meta.url))
const workerProgram = fileURLToPath(new URL('../packages/worker/src/test-support/worker-process.ts', import.meta.url))

test.skipIf(process.platform !== 'linux')(
  'the command of an agent that is frozen beyond its lease is dead before another attempt begins',
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'oz-frozen-'))
    chmodSync(folder, 0o755)
    mkdirSync(join(folder, 'out'))
    chmodSync(join(folder, 'out'), 0o777)
    const beats = join(folder, 'out', 'beats')
    const beat = `while :; do echo "$OZ_EXECUTION_ID" >>${beats}; sleep 0.1; done`
    try {
      await using model = await startScriptedModel({
        apiKey: 'sk-test',
        handler: ({ number }) =>
          number === 0 ? { toolCalls: [{ name: 'run_command', arguments: { command: beat } }] } : { text: 'Done.' },
      })
      await using cp = await startControlPlane({
        env: { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` },
        lease: { unreachable: '2s', stop: '6s', lost: '12s' },
      })
      const start = () => {
        const config = join(folder, 'worker.yaml')
        writeFileSync(
          config,
          JSON.stringify({ backend: { direct: { oz_path: oz, state_dir: join(folder, 'state') } } }),
        )
        const flags = { serverUrl: cp.url, workerId: 'w', backend: 'direct', configFile: config, drain: 'stop' }
        const child = spawn(process.execPath, [workerProgram, JSON.stringify(flags)], {
          env: { PATH: process.env.PATH, HOME: folder, OZ_API_KEY: cp.adminKey },
          stdio: 'ignore',
        })
        const exited = once(child, 'exit')
        const end = async (signal: NodeJS.Signals) => {
          child.kill(signal)
          await exited
        }
        return { end, [Symbol.asyncDispose]: () => end('SIGTERM') }
      }
      await using first = start()
      const runId = await cp.createRun({
        prompt: 'Beat.',
        config: { model_id: 'openai/scripted', idle_timeout_minutes: 0 },
      })
      await until(
        async () => statSync(beats, { throwIfNoEntry: false })?.size ?? 0,
        (size) => size > 0,
        { timeoutMs: 30_000 },
      )
      const { executions } = await cp.client.runs.executions(runId)
      const executionId = executions[0]?.execution_id ?? ''
      const agents = (await findProcesses({ marker: `${executionIdVariable}=${executionId}` })).filter(isAgent)
      expect(agents.length).toBeGreaterThan(0)
      await first.end('SIGKILL')
      for (const { pid } of agents) process.kill(pid, 'SIGSTOP')
      const frozenAt = Date.now()
      await until(
        () => findProcesses({ marker: `${executionIdVariable}=${executionId}` }),
        (left) => left.length === 0,
        { timeoutMs: 20_000 },
      )
      // Half of the time between stop and lost, after the last renewal.
      expect(Date.now() - frozenAt).toBeLessThan(12_000)
      expect((await cp.client.runs.executions(runId)).executions).toHaveLength(1)

      await using _second = start()
      await cp.waitFor(runId, 'SUCCEEDED', 40_000)
      const ended = (await cp.client.runs.executions(runId)).executions
      expect(ended).toHaveLength(2)
      const seen = new Set(readFileSync(beats, 'utf8').trim().split('\n'))
      expect([...seen]).toEqual([executionId])
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  },
)

/** The agent's own process, not its shim and not its tools. */
function isAgent({ pid }: { pid: number }): boolean {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
    return readlinkSync(`/proc/${pid}/exe`).endsWith('node') && words.includes('agent') && words.includes('run')
  } catch {
    // A `sleep` that has ended meanwhile.
    return false
  }
}
