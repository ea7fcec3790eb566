import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import { createServer } from 'node:net'
import { resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { startBenchControlPlane } from './control-plane.ts'
import { startLiveAgents } from './live-agents.ts'
import { type Benchmark, compared, type Measurement, percentile } from './measurement.ts'
import { scratchHome, startProgram, stop } from './programs.ts'

const concurrency = 64
const agents = 20
const rounds = 20
const callsPerRound = 50
const warmUpRounds = 4
const limitRounds = 8
const limitSeconds = 1.5

/**
 * Small calls to a provider on loopback through `oz server --role gateway`, every one of them authenticated, metered and written to its run's log;
 * beside the same calls to the provider itself, and through Portkey's gateway, which does none of that.
 */
export const gatewayBenchmark: Benchmark = {
  name: 'gateway',
  async run(): Promise<Measurement[]> {
    await using stack = new AsyncDisposableStack()
    const controlPlane = await startBenchControlPlane()
    stack.use(controlPlane)
    const tokens = (await startLiveAgents(controlPlane, agents)).map(({ token }) => token)
    const provider = await startProvider()
    stack.defer(() => stop(provider.child, 'SIGKILL'))
    const home = scratchHome()
    stack.defer(home.remove)
    const ours = await startProgram(
      ['server', '--role', 'gateway'],
      { ...home.env, DATABASE_URL: controlPlane.databaseUrl, OPENAI_BASE_URL: `${provider.url}/v1` },
      'server_ready',
    )
    stack.defer(ours.stop)
    const portkey = await startPortkey()
    stack.defer(() => stop(portkey.child, 'SIGKILL'))

    const targets = {
      direct: (call: number) => target(`${provider.url}/v1/chat/completions`, bearer(tokens, call)),
      ours: (call: number) => target(`${ours.url}/llm/openai/v1/chat/completions`, bearer(tokens, call)),
      portkey: (call: number) =>
        target(`${portkey.url}/v1/chat/completions`, {
          ...bearer(tokens, call),
          'x-portkey-provider': 'openai',
          'x-portkey-custom-host': `${provider.url}/v1`,
        }),
    }
    const results: Measurement[] = []
    for (const isStream of [false, true]) {
      const kind = isStream ? 'streamed' : 'whole'
      const latency = await compareLatencies(targets, isStream)
      const added = (name: 'ours' | 'portkey') => percentile(latency[name], 50) - percentile(latency.direct, 50)
      results.push(
        compared(
          `gateway: added to a small ${kind} call, p50`,
          'ms',
          { value: added('ours'), control: { name: 'Portkey’s gateway', value: added('portkey') } },
          { words: '≤ 1.5 ms', isMet: (value) => value <= 1.5 },
        ),
      )
      const rate = await compareRates({ ours: targets.ours, portkey: targets.portkey }, isStream)
      results.push(
        compared(
          `gateway: small ${kind} calls at the limit, ${concurrency} at a time`,
          'requests/s',
          { value: rate.ours, control: { name: 'Portkey’s gateway', value: rate.portkey } },
          {
            words: '≥ 1,000 requests/s and ≥ 2 × control',
            isMet: (value, ratio) => value >= 1_000 && ratio >= 2,
          },
        ),
      )
    }
    await checkUsage(controlPlane.pool, tokens.length)
    return results
  },
}

interface Target {
  url: URL
  headers: Record<string, string>
}

export const target = (url: string, headers: Record<string, string>): Target => ({ url: new URL(url), headers })
export const bearer = (tokens: string[], call: number) => ({ authorization: `Bearer ${tokens[call % tokens.length]}` })

const agent = new http.Agent({ keepAlive: true })

/** Resolves when the last byte has come. */
export function call({ url, headers }: Target, isStream: boolean): Promise<void> {
  const body = JSON.stringify({
    model: 'bench',
    messages: [{ role: 'user', content: 'How much is two and two?' }],
    stream: isStream,
  })
  return new Promise((done, reject) => {
    const request = http.request(url, {
      agent,
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
    })
    request.on('response', (response) => {
      if (response.statusCode !== 200) reject(new Error(`${url.href} answers ${response.statusCode}`))
      response.on('end', done).on('error', reject).resume()
    })
    request.on('error', reject)
    request.end(body)
  })
}

type Targets<Name extends string> = Record<Name, (call: number) => Target>

/** One call at a time, in turns, so that whatever else the machine does meets all of them. */
async function compareLatencies<Name extends string>(targets: Targets<Name>, isStream: boolean) {
  const names = Object.keys(targets) as Name[]
  const samples = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<Name, number[]>
  for (let round = -warmUpRounds; round < rounds; round++)
    for (const name of names)
      for (let i = 0; i < callsPerRound; i++) {
        const from = performance.now()
        await call(targets[name](i), isStream)
        if (round >= 0) samples[name].push(performance.now() - from)
      }
  return samples
}

/** In short turns, of which the best counts: whatever else the machine does meets both, and some turns not at all. */
async function compareRates<Name extends string>(targets: Targets<Name>, isStream: boolean) {
  const names = Object.keys(targets) as Name[]
  const best = Object.fromEntries(names.map((name) => [name, 0])) as Record<Name, number>
  for (let round = 0; round < limitRounds; round++)
    for (const name of names) best[name] = Math.max(best[name], await rateOf(targets[name], isStream))
  return best
}

async function rateOf(targetOf: (call: number) => Target, isStream: boolean): Promise<number> {
  let calls = 0
  const from = performance.now()
  const until = from + limitSeconds * 1000
  await Promise.all(
    Array.from({ length: concurrency }, async (_, lane) => {
      for (let i = lane; performance.now() < until; i += concurrency) {
        await call(targetOf(i), isStream)
        calls++
      }
    }),
  )
  return (calls * 1000) / (performance.now() - from)
}

/** A gateway that forgets to count is quick. */
async function checkUsage(pool: { query(text: string): Promise<{ rows: unknown[] }> }, runs: number): Promise<void> {
  const { rows } = await pool.query(
    `select (select count(*) from model_usage) as usage, (select count(*) from session_events where type = 'usage') as events,
            (select count(distinct run_id) from model_usage) as runs`,
  )
  const counts = rows[0] as { usage: number; events: number; runs: number }
  if (Number(counts.usage) !== Number(counts.events) || Number(counts.runs) !== runs)
    throw new Error(`the usage is not complete: ${JSON.stringify(counts)}`)
}

export async function startProvider(): Promise<{ child: ChildProcess; url: string }> {
  const child = spawn(process.execPath, [resolve(import.meta.dirname, 'loopback-provider.ts')], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const [url] = (await once(createInterface({ input: child.stdout }), 'line')) as [string]
  return { child, url }
}

async function startPortkey(): Promise<{ child: ChildProcess; url: string }> {
  const port = await freePort()
  const program = resolve(import.meta.dirname, '../node_modules/@portkey-ai/gateway/build/start-server.js')
  const repair = resolve(import.meta.dirname, 'portkey-headers.ts')
  const child = spawn(process.execPath, ['--import', repair, program, `--port=${port}`, '--headless'], {
    stdio: 'ignore',
    env: { ...process.env, NODE_ENV: 'production' },
  })
  const url = `http://127.0.0.1:${port}`
  for (let i = 0; ; i++) {
    const isUp = await fetch(url).then(
      () => true,
      () => false,
    )
    if (isUp) return { child, url }
    if (i > 200 || child.exitCode !== null) throw new Error('Portkey’s gateway does not start')
    await new Promise((later) => setTimeout(later, 100))
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}
