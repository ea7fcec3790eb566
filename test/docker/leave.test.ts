import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, inject, type TestContext, test } from 'vitest'
import { agentBundles } from '../../packages/cli/src/stack/agent-bundles.ts'
import { runOz } from '../../packages/cli/src/test-support/run-program.ts'
import { listContainers } from '../../packages/worker/src/engine/containers.ts'
import { emptyImage } from '../../packages/worker/src/engine/helper-container.ts'
import { inspectImage } from '../../packages/worker/src/engine/images.ts'
import { removeVolume } from '../../packages/worker/src/engine/volumes.ts'
import { type ControlPlane, startControlPlane } from '../support/control-plane.ts'
import { startEngine } from '../support/docker-engine.ts'
import { endOf, leftOf, startModelOf } from '../support/docker-runs.ts'
import { until } from '../support/poll.ts'
import { bootScratchMachine, type ScratchMachine } from '../support/scratch-machine.ts'
import { imageName, objectsOf, openTestEngine, prepareImages } from '../support/test-images.ts'

/**
 * The way back of a machine that `install.sh` has made a worker of the docker backend, and whose worker has been at work: on an engine of its own, so that
 * whatever is there then is of it.
 */
const waits = [
  {
    toolCalls: [
      { name: 'run_command', arguments: { command: 'echo unsaved >file; until [ -e go ]; do sleep 0.1; done' } },
    ],
  },
  { text: 'Never said.' },
]

async function boot(context: TestContext, cp: ControlPlane): Promise<ScratchMachine> {
  const machine = await bootScratchMachine(cp.url)
  if (!('problem' in machine)) return machine
  if (process.env.CI) throw new Error(machine.problem)
  console.error(`NOT TESTED: ${machine.problem}`)
  return context.skip(machine.problem)
}

async function joinToken(cp: ControlPlane): Promise<string> {
  return (await cp.client.workers.createJoinToken({})).token
}

async function must(machine: ScratchMachine, command: string): Promise<string> {
  const { exitCode, stdout, stderr } = await machine.run(command)
  expect([command, exitCode, stderr]).toEqual([command, 0, ''])
  return stdout
}

/** Where both the machine and the engine find it under one name, as on a machine with an engine. The engine's socket is where everybody looks. */
async function shareWithEngine(machine: ScratchMachine, { folder, socket }: { folder: string; socket: string }) {
  await must(
    machine,
    `mkdir -p ${folder} && mount --bind /mnt${folder} ${folder} && ln -s /mnt${socket} /run/docker.sock`,
  )
}

const startRun = (cp: ControlPlane, prompt: string, workerId: string) =>
  cp.createRun({
    prompt,
    config: {
      ...{ worker_host: workerId, idle_timeout_minutes: 0 },
      environment: { docker_image: imageName('musl') },
    },
  })

test('a machine that leaves has nothing on its engine any more, but for a container that was kept on purpose, which it names', {
  timeout: 240_000,
}, async (context) => {
  await using engine = await startEngine()
  await prepareImages(engine, ['musl'])
  const before = await objectsOf(engine)
  const folder = mkdtempSync('/tmp/oz-leave-')
  using _folder = { [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }) }
  const prompts = { kept: 'To be kept.', tidy: 'Not to be kept.', live: 'At work until the end.' }
  await using model = await startModelOf({ [prompts.live]: waits })
  await using cp = await startControlPlane({
    env: model.env,
    bundles: agentBundles({ OZ_AGENT_BUNDLE: inject('agentBundle') }),
  })
  await using machine = await boot(context, cp)
  await shareWithEngine(machine, { folder, socket: engine.socket })
  const additions = await machine.additions()
  const stateDir = join(folder, 'state')
  mkdirSync(join(folder, 'settings'))
  const file = join(folder, 'settings', 'worker.yaml')
  writeFileSync(file, JSON.stringify({ backend: { docker: { state_dir: stateDir } } }))

  const install = `curl -fsS ${cp.url}/install.sh | sh -s -- --join ${await joinToken(cp)} --worker-id keeper`
  const joined = await must(machine, `${install} -- --config-file ${file} --no-cleanup`)
  expect(joined).toMatch(/backend +docker \(Docker \S+ answers at unix:/)
  const kept = await startRun(cp, prompts.kept, 'keeper')
  expect(await endOf(cp, kept)).toMatchObject({ state: 'SUCCEEDED' })

  const again = `OZ_JOIN_TOKEN=${await joinToken(cp)} oz-agent-worker join --server-url ${cp.url}`
  await must(machine, `${again} --worker-id tidy --config-file ${file}`)
  const [tidy, live] = [await startRun(cp, prompts.tidy, 'tidy'), await startRun(cp, prompts.live, 'tidy')]
  expect(await endOf(cp, tidy)).toMatchObject({ state: 'SUCCEEDED' })
  await until(() => model.askedBy(prompts.live).length, Boolean, { timeoutMs: 60_000 })
  expect(await leftOf(engine, live)).not.toEqual([])

  const said = await must(machine, 'oz-agent-worker leave')
  expect(await leftOf(engine, live)).toEqual([])
  await using api = openTestEngine(engine)
  const [container, ...others] = await listContainers(api, { labels: [] })
  expect(others).toEqual([])
  expect(container).toMatchObject({ State: 'exited', Labels: { 'oz-task-id': kept } })
  expect(said).toContain(`The container ${container?.Names[0]?.slice(1)} stays, with its volumes`)
  const [volume = ''] = /(?<=`docker volume rm )\S+(?=`)/.exec(said) ?? []
  expect((await objectsOf(engine)).filter((one) => /oz-agent-|oz-sidecar-|network/.test(one))).toEqual([
    `volume ${volume}`,
  ])
  // What the agent had done until then is with the control plane, and the run waits for another worker.
  expect(await cp.client.runs.get(live)).toMatchObject({ state: expect.stringMatching(/QUEUED|PENDING/) })
  expect((await cp.client.runs.workspace(live)).repositories).not.toEqual([])
  expect(await machine.additions()).toEqual(additions)
  expect((await cp.client.apiKeys.list()).api_keys.map(({ scope }) => scope)).toEqual(['user'])

  const env = { PATH: process.env.PATH, HOME: folder, ...engine.env }
  expect((await runOz(['worker', 'inspect', kept, '--remove'], env)).exitCode).toBe(0)
  await removeVolume(api, volume)
  expect(await objectsOf(engine)).toEqual(before)
  expect(await inspectImage(api, emptyImage)).toBeUndefined()
})
