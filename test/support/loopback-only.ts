import { execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { ListRunsResponse } from '@openoz/protocol'
import { makeRepository } from './agent-fixture.ts'
import { packetsOut } from './network-namespace.ts'
import { until } from './poll.ts'
import { startScriptedModel } from './scripted-model.ts'

/**
 * Everything on one machine, to be started inside a network namespace: control plane, database, worker, a run with a repository, and the
 * command line. Prints what happened, and how many packets left the loopback, as JSON.
 */
const run = promisify(execFile)
const bin = fileURLToPath(new URL('../../packages/cli/bin/', import.meta.url))
const folder = process.argv[2] ?? ''
const env: NodeJS.ProcessEnv = {
  PATH: process.env.PATH,
  TMPDIR: process.env.TMPDIR,
  HOME: join(folder, 'home'),
  XDG_CONFIG_HOME: join(folder, 'config'),
  XDG_STATE_HOME: join(folder, 'state'),
  OZ_DATA_DIR: join(folder, 'data'),
}
const oz = async (...args: string[]) =>
  (await run(process.execPath, [join(bin, 'oz.mjs'), ...args], { env })).stdout.trim()

await using model = await startScriptedModel({
  steps: [
    { toolCalls: [{ name: 'run_command', arguments: { command: 'echo 4 > sum.txt; git commit -qam "Fix"' } }] },
    { text: 'Fixed.' },
  ],
})
const providers = { OPENAI_API_KEY: 'sk-test', OPENAI_BASE_URL: `${model.url}/v1` }
const args = [join(bin, 'oz.mjs'), 'up', '--listen', '127.0.0.1:0', '--worker-id', 'alone', '--output-format', 'ndjson']
const up = spawn(process.execPath, args, { env: { ...env, ...providers }, stdio: ['ignore', 'pipe', 'inherit'] })
let said = ''
up.stdout.on('data', (chunk: Buffer) => {
  said += chunk
})
try {
  await until(() => said.includes('worker_ready') || up.exitCode !== null, Boolean, { timeoutMs: 60_000 })
  const origin = makeRepository(join(folder, 'origin'), { 'sum.txt': '3\n' })
  execFileSync('chmod', ['-R', 'a+rX', origin])
  const watched = await oz('agent', 'run-cloud', '--prompt', 'Fix the sum.', '--repo', `file://${origin}`, '--watch')
  const { runs } = JSON.parse(await oz('run', 'list', '--output-format', 'json')) as ListRunsResponse
  await oz('run', 'checkout', runs[0]?.run_id ?? '', '--repo', origin)
  const ids = await oz('worker', 'list')
  const atEnd = packetsOut()
  // The counter counts: a name is looked up, and an address dialled, that are not on the loopback.
  await fetch('http://198.51.100.7/', { signal: AbortSignal.timeout(500) }).catch(() => {})
  await until(() => packetsOut() > atEnd, Boolean, { timeoutMs: 5_000 })
  const branches = execFileSync('git', ['-C', origin, 'branch', '--list'], { encoding: 'utf8' })
  process.stdout.write(
    JSON.stringify({ packets: atEnd, states: runs.map(({ state }) => state), watched, ids, branches }),
  )
} finally {
  up.kill('SIGTERM')
  if (up.exitCode === null) await once(up, 'exit')
}
