import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { createApiClient } from '@openoz/protocol'
import { startScriptedModel } from '../test/support/scripted-model.ts'
import { scratchHome, dist } from './programs.ts'
const home = scratchHome()
const model = await startScriptedModel({ handler: () => ({ text: 'Done.' }) })
const traced = process.argv[2] === 'strace'
const cmd = [process.execPath, dist('oz'), 'up', '--worker-id', 'bench', '--output-format', 'ndjson']
const full = traced ? ['strace', '-f', '--seccomp-bpf', '-ttt', '-s', '100', '-e', 'trace=execve,connect,exit_group,setresuid,mkdir,clone,vfork,clone3', '-o', '/tmp/tl.strace', ...cmd] : cmd
const child = spawn(full[0], full.slice(1), { env: { ...home.env, OPENAI_BASE_URL: `${model.url}/v1`, OPENAI_API_KEY: 'bench' }, stdio: ['ignore', 'pipe', 'pipe'] })
let err = ''
child.stderr.on('data', (d) => { err += d })
let url = ''
await new Promise<void>((ok, no) => { child.once('exit', () => no(new Error(err))); createInterface({ input: child.stdout }).on('line', (l) => { const o = JSON.parse(l); if (o.url) url = o.url; if (o.type === 'worker_ready') ok() }) })
const apiKey = readFileSync(join(home.dataDir, 'admin-api-key'), 'utf8').trim()
const client = createApiClient({ fetch: (p, i) => fetch(url + p, i), apiKey })
const n = Number(process.argv[3] ?? 6)
for (let i = 0; i < n; i++) {
  const { run_id } = await client.runs.create({ prompt: 'Say done.' })
  while ((await client.runs.get(run_id)).finished_at === null) await new Promise((d) => setTimeout(d, 50))
  const { executions } = await client.runs.executions(run_id)
  console.log(executions[0].waterfall.map((s) => `${s.step}@${(Date.parse(s.started_at) / 1000).toFixed(3).slice(-7)}+${s.duration_ms}`).join(' '))
}
child.kill('SIGTERM')
await new Promise((d) => child.once('exit', d))
await model.close(); home.remove()
for (const l of err.split('\n').filter((l) => /"(Task|msg":"Task)/.test(l)).slice(-4)) console.log(l.slice(0, 200))
