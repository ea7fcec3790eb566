import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text as readText } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Evidence } from '../../packages/cli/src/chaos/evidence.ts'
import { listOwnProcesses } from '../../packages/cli/src/chaos/own-processes.ts'
import { planRound, type RunPlan } from '../../packages/cli/src/chaos/plan.ts'
import { performRound } from '../../packages/cli/src/chaos/round.ts'
import {
  createRoundFolder,
  openRoundFolder,
  type RoundFolder,
  removeRoundFolder,
} from '../../packages/cli/src/chaos/round-folder.ts'
import { checkNames, verify } from '../../packages/cli/src/chaos/verify.ts'
import { until } from '../support/poll.ts'
import { damages } from './damage.ts'

/** Whole rounds of the chaos verifier, alone on the machine: a vitest project of their own runs after all others. */

const oz = fileURLToPath(new URL('../../packages/cli/bin/oz.mjs', import.meta.url))

function startChaos(args: string[]): ChildProcess {
  return spawn(process.execPath, [oz, '--output-format', 'json', 'chaos', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

/** What the round says on stderr, until a line matches. */
async function lineOf(child: ChildProcess, pattern: RegExp): Promise<string> {
  if (!child.stderr) throw new Error('it has no stderr')
  for await (const line of createInterface({ input: child.stderr })) {
    const [found] = pattern.exec(line) ?? []
    if (found !== undefined) return found
  }
  throw new Error(`it never said ${pattern}`)
}

/** One that is performed twice, one that asks, one that is steered and leaves processes behind. */
const calmRuns: RunPlan[] = [
  {
    index: 0,
    afterMs: 10,
    idleMinutes: 0,
    turns: [
      { steps: ['write', 'beat'], begins: 'at-rest', said: [] },
      { steps: ['beat', 'write'], begins: 'at-end', said: [] },
    ],
  },
  {
    index: 1,
    afterMs: 10,
    idleMinutes: 1,
    turns: [
      { steps: ['write', 'ask'], begins: 'at-rest', said: [] },
      { steps: ['beat'], begins: 'at-rest', said: [] },
    ],
  },
  {
    index: 2,
    afterMs: 10,
    idleMinutes: 0,
    turns: [
      {
        steps: ['write', 'daemon', 'clean-daemon', 'background', 'beat'],
        begins: 'at-rest',
        said: [{ afterCalls: 1, mode: 'steer' }],
      },
    ],
  },
]

describe('in calm', () => {
  const state: { evidence?: Evidence; folder?: RoundFolder } = {}

  beforeAll(async () => {
    const plan = { ...planRound({ seed: '1', runs: 3, servers: 2, kinds: [] }), runs: calmRuns }
    const folder = createRoundFolder()
    state.folder = folder
    const signal = new AbortController().signal
    state.evidence = (await performRound({ plan, folder, onProgress: () => {}, signal })).evidence
  }, 120_000)

  afterAll(() => {
    if (state.folder) removeRoundFolder(state.folder)
  })

  /** A copy of its own. */
  function evidence(): Evidence {
    return structuredClone(state.evidence) as Evidence
  }

  test('a round in which nothing is damaged finds nothing, and leaves nothing', () => {
    expect(verify(evidence())).toEqual([])
    expect(evidence().runs).toHaveLength(3)
    expect(evidence().ledger.length).toBeGreaterThan(20)
    expect(evidence().views.every(({ seen }) => seen.length > 10)).toBe(true)
    expect(listOwnProcesses(state.folder as RoundFolder)).toEqual([])
  })

  test.each(damages)('the verifier finds that $name, and its check $check alone speaks', ({ check, plant }) => {
    const damaged = evidence()
    plant(damaged)
    const findings = verify(damaged)
    expect([...new Set(findings.map((finding) => finding.check))]).toEqual([check])
  })
})

test('every check is explained in the documentation, and has damage that it finds', () => {
  const page = readFileSync(new URL('../../docs/chaos.md', import.meta.url), 'utf8')
  const [, section = ''] = /\n## What is proven\n([\s\S]*?)\n## /.exec(page) ?? []
  const explained = [...section.matchAll(/^\| `([a-z_]+)` \|/gm)].map(([, name]) => name)
  expect(explained.toSorted()).toEqual([...checkNames].toSorted())
  expect([...new Set(damages.map(({ check }) => check))].toSorted()).toEqual([...checkNames].toSorted())
})

test('a round with everything that can be killed loses nothing, does nothing twice, and leaves nothing', async () => {
  const chaos = startChaos(['--runs', '20', '--seed', '6', '--servers', '2'])
  const [stdout, stderr] = await Promise.all([readText(chaos.stdout as never), readText(chaos.stderr as never)])
  const report = JSON.parse(stdout || '{}') as { findings?: unknown[]; type?: string }
  expect(report.findings, stderr.slice(-4_000)).toEqual([])
  expect(report).toMatchObject({ type: 'chaos_report', runs: 20, lost: 0, double: 0, stuck: 0, holes: 0, left_over: 0 })
}, 400_000)

describe('whatever ends a round', () => {
  test.each(['SIGKILL', 'SIGINT'] as const)(
    '%s: everything that it had started is gone',
    async (signal) => {
      const chaos = startChaos(['--runs', '6', '--seed', '3', '--kill', 'agent'])
      const path = await lineOf(chaos, /(?<= in )\/.*$/)
      const folder = openRoundFolder(path)
      expect(folder).toBeDefined()
      if (!folder) return
      // Agents are at work by then.
      await until(
        async () =>
          readdirSync(join(folder.logs)).length > 0 &&
          listOwnProcesses(folder).filter(({ executionId }) => executionId).length,
        (count) => Number(count) > 3,
        { timeoutMs: 60_000 },
      )
      const exited = once(chaos, 'exit')
      chaos.kill(signal)
      const [code] = await exited
      if (signal === 'SIGINT') expect(code).toBe(130)
      await until(
        async () => listOwnProcesses(folder).length,
        (count) => count === 0,
        { timeoutMs: 30_000 },
      )
      await until(
        async () => existsSync(path),
        (isThere) => !isThere,
        { timeoutMs: 30_000 },
      )
      expect(path.startsWith(tmpdir())).toBe(true)
    },
    150_000,
  )
})
