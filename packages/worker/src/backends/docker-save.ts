import { appendFile, lstat } from 'node:fs/promises'
import { join } from 'node:path'
import { leaseLostExitCode, messageOf } from '@openoz/protocol'
import { aborted } from '../aborted.ts'
import {
  type ContainerDetails,
  type ContainerHostConfig,
  type ContainerSpec,
  createContainer,
  inspectContainer,
  logsTail,
  putArchive,
  removeContainer,
  startContainer,
} from '../engine/containers.ts'
import { isEngineAway } from '../engine/engine-failure.ts'
import { tarOf } from '../engine/tar-text.ts'
import { keptWorkName } from '../task-folder.ts'
import { controlPaths } from './docker-environment.ts'
import { exitCodeOf } from './docker-exit.ts'
import type { DockerHost, DockerTaskContext } from './docker-host.ts'
import { labelsOf } from './docker-labels.ts'
import { fetchLeft } from './docker-left.ts'
import { relaySocketName } from './docker-relay.ts'
import { relayFolder } from './docker-spec.ts'
import { fetchSpool, helperOf } from './docker-spool.ts'
import { userOf } from './docker-user.ts'
import type { SaveResult } from './ended-task.ts'

/**
 * What an agent that died has left unsaved is saved by a second container: as the first, with its image, its volumes, its bounds and its variables, but
 * with `oz agent save-work` as its program. Never by the worker itself: git runs programs that a repository names.
 *
 * Called when the task's container has ended and before its spool is delivered, which is fetched anew then: it holds what the saver said.
 */

/** Of the saver's own words, for the operator. */
const maxLogBytes = 16 * 1024

/** Never rejects. `again` also while the engine is away. */
export async function saveLeftWork(
  host: DockerHost,
  context: DockerTaskContext,
  stop: AbortSignal,
): Promise<SaveResult> {
  const { engine, names, paths, token, record, log } = context
  try {
    // A process that was killed while it replaced our copy has left none.
    await fetchLeft(host, context, stop)
    const kept = await lstat(join(paths.spool, keptWorkName)).catch(() => undefined)
    if (!kept?.isDirectory()) return 'none'
    if (token === undefined) throw new Error('the token of the execution is not there any more')
    const dead = await inspectContainer(engine, names.container)
    if (!dead) throw new Error('its container was removed from the engine')
    const code = await runSaver(host, context, { dead, token, stop })
    await fetchSpool(context, labelsOf(host.owner, record, 'helper'), { isChanged: true, signal: stop })
    if (code === leaseLostExitCode) return 'again'
    if (code !== 0) throw new Error(code === undefined ? 'its saver disappeared' : `its saver ended with code ${code}`)
    log.info('The agent died without saving; what it had done was saved')
    return 'saved'
  } catch (error) {
    if (stop.aborted || isEngineAway(error)) return 'again'
    log.error(
      { problem: messageOf(error) },
      'What an agent left that died could not be saved: its files since the last save are lost',
    )
    return 'lost'
  }
}

interface Dead {
  dead: ContainerDetails
  token: string
  stop: AbortSignal
}

/** Resolves with its exit code. Nothing of it is left afterwards. */
async function runSaver(host: DockerHost, context: DockerTaskContext, { dead, token, stop }: Dead) {
  const { engine, names, paths } = context
  const { observer, facts, savingTimeoutMs, leaving } = host
  // What an earlier process of ours was in the middle of.
  await removeContainer(engine, names.saver)
  await giveToken(host, context, { dead, token })
  const { Id: id } = await createContainer(engine, saverSpec(host, context, dead), {
    name: names.saver,
    platform: facts.platform,
  })
  try {
    const limit = AbortSignal.any([stop, AbortSignal.timeout(savingTimeoutMs)])
    await startContainer(engine, id)
    const ended = observer.watch(id, { isAsked: () => limit.aborted, signal: leaving })
    const seen = await Promise.race([ended, aborted(limit)])
    const words = await logsTail(engine, id, { maxBytes: maxLogBytes })
    await appendFile(paths.log, words, { mode: 0o600 }).catch(() => {})
    if (!seen) throw new Error('its saver took too long')
    return seen.state && exitCodeOf(seen.state)
  } finally {
    await removeContainer(engine, id)
  }
}

/** The agent has removed its own; and the guard would go by the deadline of a lease that nobody renews any more. */
async function giveToken(
  { owner }: DockerHost,
  context: DockerTaskContext,
  { dead, token }: Omit<Dead, 'stop'>,
): Promise<void> {
  const { engine, record } = context
  const helper = await helperOf(context, labelsOf(owner, record, 'helper'))
  if (helper === undefined) throw new Error('its volumes were removed from the engine')
  const user = await userOf(engine, dead.Id, dead.Config.User)
  const entries = [
    { name: controlPaths.token.slice(1), body: token, ...user },
    { name: controlPaths.lease.slice(1), body: '', ...user },
  ]
  await putArchive(engine, helper, { path: '/', archive: await tarOf(entries) })
}

function saverSpec(
  { owner, relay, worker }: DockerHost,
  { record }: DockerTaskContext,
  { Image, Config, HostConfig }: ContainerDetails,
): ContainerSpec {
  const command = Config.Cmd ?? []
  // Before it, what starts it in an image of another C library; see `taskCommand`.
  const start = command.slice(0, Math.max(0, command.indexOf('agent')))
  if (start.length === 0) throw new Error('its container was started with something else')
  const serverRootUrl =
    relay && Config.Env?.includes(`WARP_SERVER_ROOT_URL=${relayed}`) ? relayed : worker.serverRootUrl
  return {
    Image,
    Entrypoint: [],
    Cmd: [...start, 'agent', 'save-work', '--server-root-url', serverRootUrl],
    // With the image's own, and what of them is set aside.
    Env: Config.Env ?? [],
    WorkingDir: Config.WorkingDir,
    ...(Config.User ? { User: Config.User } : {}),
    Healthcheck: { Test: ['NONE'] },
    Labels: labelsOf(owner, record, 'saver'),
    HostConfig: sameBounds(HostConfig),
  }
}

/** As containers see the socket of the relay. */
const relayed = `unix:${relayFolder}/${relaySocketName}`

/** What `containerSpec` says. Beside it engines tell much that is their own, and that they would not all take back. */
const ourBounds = [
  ...(['Binds', 'Mounts', 'NetworkMode', 'Init', 'SecurityOpt', 'CapDrop', 'CapAdd', 'PidsLimit'] as const),
  ...(['ReadonlyRootfs', 'Tmpfs', 'Runtime', 'UsernsMode', 'Dns', 'NanoCpus', 'Memory', 'MemorySwap'] as const),
  ...(['LogConfig', 'RestartPolicy', 'AutoRemove'] as const),
] satisfies (keyof ContainerHostConfig)[]

function sameBounds(found: ContainerHostConfig): ContainerHostConfig {
  return Object.fromEntries(ourBounds.map((name) => [name, found[name]]).filter(([, value]) => value != null))
}
