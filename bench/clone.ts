import { type ChildProcess, execFile, execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { createApiClient } from '@openoz/protocol'
import { startGitHttpServer } from '../test/support/git-http-server.ts'
import { startScriptedModel } from '../test/support/scripted-model.ts'
import { type Benchmark, compared, percentile } from './measurement.ts'
import { scratchHome, startProgram, startWorkerProcess, stop } from './programs.ts'

const files = 5_000
const rounds = 9

/**
 * From the clone step's start to a checked-out repository of 5,000 files, for runs after the first one: the mirror is fetched beside the
 * agent's start, and waiting for it counts. Each run begins when the workspace of the one before has been removed, as on a worker that is
 * busy with one repository. Control: `git clone --local` of the same repository, checked out, in turns with the runs. Everything lies on the
 * file system of TMPDIR, and a control is not removed before the end: ext4 without a journal would make the next one slow.
 */
export const cloneBenchmark: Benchmark = {
  name: 'clone',
  async run() {
    const home = scratchHome()
    const folder = mkdtempSync(join(tmpdir(), 'oz-bench-clone-'))
    const model = await startScriptedModel({ handler: () => ({ text: 'Done.' }) })
    await using host = await startGitHttpServer(folder)
    const env = { ...home.env, OPENAI_BASE_URL: `${model.url}/v1`, OPENAI_API_KEY: 'bench' }
    const server = await startProgram(['server'], env, 'server_ready')
    let worker: ChildProcess | undefined
    try {
      chmodSync(folder, 0o755)
      const origin = makeLargeRepository(join(folder, 'large'))
      const apiKey = readFileSync(join(home.dataDir, 'admin-api-key'), 'utf8').trim()
      const client = createApiClient({ fetch: (path, init) => fetch(server.url + path, init), apiKey })
      worker = startWorkerProcess(join(folder, 'state'), { ...home.env, OZ_API_KEY: apiKey, OZ_SERVER_URL: server.url })
      const environment = { source_repos: [{ url: host.url('large') }] }
      const config = { worker_host: 'bench', environment, idle_timeout_minutes: 0 }

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
        await workspacesAreGone(join(folder, 'state'))
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
          { words: '≤ 1000 ms', isMet: (value) => value <= 1_000 },
        ),
      ]
    } finally {
      await stop(worker)
      await server.stop()
      await model.close()
      home.remove()
      rmSync(folder, { recursive: true, force: true })
    }
  },
}

async function workspacesAreGone(stateDir: string): Promise<void> {
  while (readdirSync(join(stateDir, 'workspaces')).length > 0) await sleep(20)
}

/** Packed, as the mirrors are. 50 folders of 100 files of 1 to 4 KB each, which do not compress away. */
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
  git('gc', '--quiet')
  return folder
}

async function localCloneMs(origin: string, to: string): Promise<number> {
  const from = performance.now()
  await promisify(execFile)('git', ['clone', '--quiet', '--local', origin, to])
  return performance.now() - from
}
