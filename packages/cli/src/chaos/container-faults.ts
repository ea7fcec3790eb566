import { sleep } from '@openoz/machine'
import { killContainer, listContainers, roleLabel, stateLabel, taskLabels } from '@openoz/worker'
import { freeze, type Inflicted } from './inflicted.ts'
import { agentsAmong, listOwnProcesses, signalOwn } from './own-processes.ts'
import type { Fault } from './plan.ts'
import { installationsOf, type RoundEngine } from './round-engine.ts'
import type { RoundFolder } from './round-folder.ts'

interface ContainerScene {
  engine: RoundEngine
  folder: RoundFolder
  signal: AbortSignal
}

/**
 * A paused container is frozen with the guard of its lease, and with everything that could still act: nobody ends it while it sleeps, and it must not sleep
 * longer than its lease. An agent that is frozen alone may.
 */
const longestPauseMs = 6_000

/** Half of them as the engine does it to a container, half of them to the agent's process in there, where this machine shows it to us. */
export async function inflictOnContainer(
  fault: Fault & { target: 'agent' },
  { engine, folder, signal }: ContainerScene,
): Promise<Inflicted> {
  const containers = await runningTasks({ engine, folder, signal })
  const found = containers[fault.index % containers.length]
  if (!found) return { victim: undefined }
  const { executionId, name } = found
  const processes = agentsAmong(listOwnProcesses(folder)).get(executionId) ?? []
  const isByEngine = processes.length === 0 || fault.index % 2 === 0
  if (fault.how === 'kill') {
    if (!isByEngine) for (const own of processes) signalOwn(own, 'SIGKILL')
    else if (!(await killContainer(engine.api, name).catch(() => false))) return { victim: undefined }
    return { victim: isByEngine ? `container ${name}` : `agent in ${name}` }
  }
  if (processes.length > 0 && (!isByEngine || fault.forMs > longestPauseMs)) {
    return freeze(fault, { victim: `agent in ${name}`, processes, signal })
  }
  return await pause(Math.min(fault.forMs, longestPauseMs), { engine, name, signal })
}

/** An engine that was just killed takes that long to have some again. */
const nextTaskMs = 5_000

async function runningTasks(scene: ContainerScene): Promise<RunningTask[]> {
  const giveUpAt = performance.now() + nextTaskMs
  for (;;) {
    const found = await listTasks(scene)
    if (found.length > 0 || performance.now() > giveUpAt || scene.signal.aborted) return found
    await sleep(200, scene.signal).catch(() => {})
  }
}

interface RunningTask {
  executionId: string
  /** Of its container. */
  name: string
}

/** In the order of their executions; none while the engine does not say. */
async function listTasks({ engine, folder }: ContainerScene): Promise<RunningTask[]> {
  const installations = await installationsOf(folder)
  const containers = await listContainers(engine.api, { labels: [`${roleLabel}=task`] }).catch(() => [])
  return containers
    .filter(({ State, Labels }) => State === 'running' && installations.includes(Labels[stateLabel] ?? ''))
    .map(({ Id, Names, Labels }) => ({
      executionId: Labels[taskLabels.execution] ?? '',
      name: Names[0]?.slice(1) ?? Id,
    }))
    .toSorted((a, b) => (a.executionId < b.executionId ? -1 : 1))
}

async function pause(
  forMs: number,
  { engine, name, signal }: Pick<ContainerScene, 'engine' | 'signal'> & { name: string },
): Promise<Inflicted> {
  const path = `/containers/${name}`
  try {
    await engine.api.json('POST', `${path}/pause`)
  } catch {
    return { victim: undefined }
  }
  const go = () => resume(engine, path)
  return { victim: `container ${name}`, forMs, lasts: sleep(forMs, signal).then(go, go) }
}

const resumeWithinMs = 60_000

/** The engine may be away just then. */
async function resume({ api }: RoundEngine, path: string): Promise<void> {
  const giveUpAt = performance.now() + resumeWithinMs
  while (performance.now() < giveUpAt) {
    try {
      // 404: it is gone. 409: it does not run any more. 500: it is not paused any more.
      return await api.json('POST', `${path}/unpause`, { ok: [404, 409, 500], timeoutMs: 10_000 })
    } catch {
      await sleep(200)
    }
  }
}

/** An engine that is gone is started again as soon as a service would be, however the round goes on. */
export function inflictOnEngine(fault: Fault & { target: 'engine' }, { engine, signal }: ContainerScene): Inflicted {
  const { own } = engine
  const { dockerd } = own ?? {}
  if (!own || !dockerd) return { victim: undefined }
  if (fault.how === 'stop') return freeze(fault, { victim: 'engine', processes: [dockerd], signal })
  const end = fault.how === 'kill' ? own.kill() : own.stop()
  const { keepsContainers, index } = fault
  const again = async () => {
    await end
    await sleep(200 + (index % 1_800), signal).catch(() => {})
    await own.start({ liveRestore: keepsContainers })
  }
  return { victim: keepsContainers ? 'engine' : 'engine, which will keep no containers', lasts: again() }
}
