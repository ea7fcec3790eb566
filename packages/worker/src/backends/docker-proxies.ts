import { proxyFor } from '@openoz/machine'
import type { DockerOptions } from '../docker-options.ts'
import type { EngineFacts } from '../engine/engine-check.ts'
import type { TaskNetwork } from '../task-network.ts'
import type { WorkerOptions } from '../worker-options.ts'
import { isOnlyHere } from './docker-relay.ts'

/**
 * The worker's proxies, as far as containers reach them: `localhost` means the container itself there, so one that listens on this machine's loopback is
 * none for them. Their way to the control plane is the relay then, which goes by the worker's; for everything else the operator may name another proxy
 * (`-e HTTPS_PROXY=…`).
 */
export interface ContainerProxies {
  network: TaskNetwork
  /** Names of the variables that containers are not given. */
  left: string[]
  /** The control plane is behind a proxy of this machine, and the operator has named no other one for tasks. */
  hidesServer: boolean
}

export function containerProxies(
  network: TaskNetwork,
  {
    worker,
    options,
    facts,
  }: {
    worker: Pick<WorkerOptions, 'env' | 'taskEnvironment' | 'serverRootUrl'>
    options: Pick<DockerOptions, 'network'>
    facts: Pick<EngineFacts, 'isLocal'>
  },
): ContainerProxies {
  // There the loopback is this machine's.
  if (options.network === 'host' && facts.isLocal) return { network, left: [], hidesServer: false }
  const all = Object.entries(network.proxies)
  const kept = all.filter(([name, value]) => isExceptions(name) || !isProxyHere(value))
  const left = all.map(([name]) => name).filter((name) => !kept.some(([other]) => other === name))
  const { env, taskEnvironment, serverRootUrl: url } = worker
  const proxy = URL.canParse(url) ? proxyFor(new URL(url), env) : undefined
  const isNamed = Object.keys(taskEnvironment).some((name) => /^https?_proxy$/i.test(name))
  return {
    network: { ...network, proxies: Object.fromEntries(kept) },
    left,
    hidesServer: proxy !== undefined && isOnlyHere(proxy.href) && !isNamed,
  }
}

function isExceptions(name: string): boolean {
  return name.toLowerCase() === 'no_proxy'
}

function isProxyHere(value: string): boolean {
  return isOnlyHere(/^[a-z0-9+.-]+:\/\//i.test(value) ? value : `http://${value}`)
}
