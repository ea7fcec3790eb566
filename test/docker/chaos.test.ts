import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { text as readText } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { expect, inject, test } from 'vitest'
import { listOwnProcesses } from '../../packages/cli/src/chaos/own-processes.ts'
import { openRoundFolder, type RoundFolder } from '../../packages/cli/src/chaos/round-folder.ts'
import { createContainer } from '../../packages/worker/src/engine/containers.ts'
import { readInstallationId } from '../../packages/worker/src/installation.ts'
import { startEngine } from '../support/docker-engine.ts'
import { until } from '../support/poll.ts'
import { imageName, objectsOf, openTestEngine, prepareImages } from '../support/test-images.ts'

const oz = fileURLToPath(new URL('../../packages/cli/bin/oz.mjs', import.meta.url))

interface Chaos {
  child: ChildProcess
  /** Once the round has made it. */
  folder: Promise<RoundFolder>
  stdout: Promise<string>
  stderr(): string
}

/** A round of the docker backend, which finds this tree's agent bundle. */
function startChaos(args: string[], env: NodeJS.ProcessEnv = {}): Chaos {
  const child = spawn(process.execPath, [oz, '--output-format', 'json', 'chaos', '--backend', 'docker', ...args], {
    env: { ...process.env, OZ_AGENT_BUNDLE: inject('agentBundle'), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  const folder = until(
    async () => openRoundFolder(/ in (\/\S+)/.exec(said)?.[1] ?? ''),
    (found) => found !== undefined,
    { timeoutMs: 30_000 },
  )
  folder.catch(() => {})
  return {
    child,
    folder: folder as Promise<RoundFolder>,
    stdout: readText(child.stdout as never),
    stderr: () => said,
  }
}

/** What a round with an engine of its own could leave on the machine. */
async function leftOnMachine(folder: RoundFolder): Promise<string[]> {
  const name = folder.path.split('/').at(-1) ?? ''
  const groups = await readdir('/sys/fs/cgroup', { recursive: true }).catch(() => [])
  return [
    ...listOwnProcesses(folder).map(({ pid, argv }) => `process ${pid}: ${argv.join(' ')}`),
    ...groups.filter((path) => path.includes(name)).map((path) => `control group ${path}`),
    ...readFileSync('/proc/mounts', 'utf8')
      .split('\n')
      .filter((line) => line.includes(name)),
    ...(existsSync(folder.path) ? [folder.path] : []),
  ]
}

async function untilNothingIsLeft(folder: RoundFolder): Promise<void> {
  const options = { timeoutMs: 90_000, everyMs: 500 }
  const left = await until(
    () => leftOnMachine(folder),
    (found) => found.length === 0,
    options,
  ).catch(() => leftOnMachine(folder))
  expect(left).toEqual([])
}

/** Containers are at work. */
async function untilAtWork(folder: RoundFolder): Promise<void> {
  await until(
    async () => listOwnProcesses(folder).filter(({ argv }) => argv.some((word) => word === folder.effect)).length,
    (count) => count > 0,
    { timeoutMs: 60_000 },
  )
}

test('a round in which workers, agents and the engine itself are killed loses nothing, does nothing twice, and leaves nothing', async () => {
  const chaos = startChaos(['--runs', '8', '--seed', '5', '--kill', 'worker,agent,engine'])
  const folder = await chaos.folder
  const report = JSON.parse((await chaos.stdout) || '{}') as { findings?: unknown[]; faults?: object }
  expect(report.findings, chaos.stderr().slice(-4_000)).toEqual([])
  expect(report).toMatchObject({ runs: 8, backend: 'docker', lost: 0, double: 0, stuck: 0, holes: 0, left_over: 0 })
  const hit = Object.keys(report.faults ?? {}).map((name) => name.split(' ')[0])
  expect(hit).toEqual(expect.arrayContaining(['worker', 'agent', 'engine']))
  await untilNothingIsLeft(folder)
}, 400_000)

test('on somebody else’s engine a container of the round that stays is found, and goes with the round', async () => {
  await using engine = await startEngine()
  await prepareImages(engine, ['musl'])
  const before = await objectsOf(engine)
  const chaos = startChaos(['--runs', '2', '--seed', '1', '--kill', 'none', '--image', imageName('musl')], engine.env)
  const folder = await chaos.folder
  // From now on no worker sweeps.
  await until(() => chaos.stderr().includes('waiting for the workers to stop'), Boolean, { timeoutMs: 200_000 })
  await using api = openTestEngine(engine)
  const name = `oz-planted-${randomUUID()}`
  const Labels = { 'oz-worker-state': await readInstallationId(folder.stateDirs[0] ?? '') }
  await createContainer(api, { Image: imageName('musl'), Cmd: ['sleep', '600'], Labels }, { name })
  const report = JSON.parse((await chaos.stdout) || '{}') as { findings?: unknown[] }
  expect(report.findings, chaos.stderr().slice(-4_000)).toEqual([{ check: 'left_over', detail: `container ${name}` }])
  expect(await objectsOf(engine)).toEqual(before)
  rmSync(folder.path, { recursive: true })
}, 400_000)

test('a round that is killed leaves nothing of an engine of its own', async () => {
  const chaos = startChaos(['--runs', '3', '--seed', '3', '--kill', 'none'])
  const folder = await chaos.folder
  await untilAtWork(folder)
  chaos.child.kill('SIGKILL')
  await once(chaos.child, 'exit')
  await untilNothingIsLeft(folder)
}, 200_000)

test('a round that is killed leaves nothing on somebody else’s engine', async () => {
  await using engine = await startEngine()
  await prepareImages(engine, ['musl'])
  const chaos = startChaos(['--runs', '3', '--seed', '3', '--kill', 'none', '--image', imageName('musl')], engine.env)
  const folder = await chaos.folder
  await untilAtWork(folder)
  chaos.child.kill('SIGKILL')
  await once(chaos.child, 'exit')
  await untilNothingIsLeft(folder)
  expect(await objectsOf(engine)).toEqual([])
}, 200_000)
