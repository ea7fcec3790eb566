import { execFile, execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { createApiClient } from '@openoz/protocol'
import { startGitHttpServer } from '../test/support/git-http-server.ts'
import { startScriptedModel } from '../test/support/scripted-model.ts'
import { type Benchmark, compared, percentile } from './measurement.ts'
import { scratchHome, startProgram } from './programs.ts'

const files = 5_000
const rounds = 5

/**
 * From the clone step's start to a checked-out repository of 5,000 files, for runs after the first one: the mirror is fetched beside the
 * agent's start, and waiting for it counts. Control: `git clone --local` of the same repository, checked out, in turns with the runs.
 */
export const cloneBenchmark: Benchmark = {
  name: 'clone',
  async run() {
    const home = scratchHome()
    const folder = mkdtempSync(join(tmpdir(), 'oz-bench-clone-'))
    const model = await startScriptedModel({ handler: () => ({ text: 'Done.' }) })
    await using host = await startGitHttpServer(folder)
    const up = await startProgram(
      ['up', '--worker-id', 'bench'],
      { ...home.env, OPENAI_BASE_URL: `${model.url}/v1`, OPENAI_API_KEY: 'bench' },
      'worker_ready',
    )
    try {
      chmodSync(folder, 0o755)
      const origin = makeLargeRepository(join(folder, 'large'))
      const apiKey = readFileSync(join(home.dataDir, 'admin-api-key'), 'utf8').trim()
      const client = createApiClient({ fetch: (path, init) => fetch(up.url + path, init), apiKey })
      const config = { environment: { source_repos: [{ url: host.url('large') }] }, idle_timeout_minutes: 0 }

      async function cloneOfRun(): Promise<number> {
        const { run_id } = await client.runs.create({ prompt: 'Say done.', config })
        for (const until = performance.now() + 60_000; performance.now() < until; await sleep(50)) {
          const execution = (await client.runs.executions(run_id)).executions[0]
          if (!execution?.ended_at) continue
          // Shown by its title.
          const clone = execution.waterfall.find(({ step }) => step.startsWith('Clone '))
          if (clone?.status === 'completed' && typeof clone.duration_ms === 'number') return clone.duration_ms
          throw new Error(`The clone of run ${run_id} has failed: ${JSON.stringify(execution)}`)
        }
        throw new Error(`Run ${run_id} has not ended within a minute`)
      }

      const first = await cloneOfRun()
      const cloneMs: number[] = []
      const controlMs: number[] = []
      for (let i = 0; i < rounds; i++) {
        controlMs.push(await localCloneMs(origin, join(folder, `control-${i}`)))
        cloneMs.push(await cloneOfRun())
      }
      const control = { name: 'git clone --local', value: percentile(controlMs, 50) }
      return [
        compared(
          `first run of a repository of ${files} files: clone`,
          'ms',
          { value: first, control },
          { words: 'with its control', isMet: () => true },
        ),
        compared(
          `later runs of a repository of ${files} files: clone, p50`,
          'ms',
          { value: percentile(cloneMs, 50), control },
          { words: '≤ 1000 ms, or ≤ 1.25 × control', isMet: (value, ratio) => value <= 1_000 || ratio <= 1.25 },
        ),
      ]
    } finally {
      await up.stop()
      await model.close()
      home.remove()
      rmSync(folder, { recursive: true, force: true })
    }
  },
}

/** 50 folders of 100 files of 1 to 4 KB each, which do not compress away. */
function makeLargeRepository(folder: string): string {
  for (let i = 0; i < files; i++) {
    const at = join(folder, `part-${i % 50}`)
    if (i < 50) mkdirSync(at, { recursive: true })
    const bytes = crypto.getRandomValues(new Uint8Array(750 + (i % 4) * 750))
    writeFileSync(join(at, `file-${i}.txt`), `${Buffer.from(bytes).toString('base64').replaceAll(/.{76}/g, '$&\n')}\n`)
  }
  const git = (...args: string[]) => execFileSync('git', args, { cwd: folder, stdio: 'ignore' })
  git('init', '--quiet', '--initial-branch=main')
  git('add', '--all')
  git('-c', 'user.name=bench', '-c', 'user.email=bench@example.com', 'commit', '--quiet', '--message', 'Begin')
  return folder
}

async function localCloneMs(origin: string, to: string): Promise<number> {
  const from = performance.now()
  await promisify(execFile)('git', ['clone', '--quiet', '--local', origin, to])
  const ms = performance.now() - from
  await rm(to, { recursive: true })
  return ms
}
