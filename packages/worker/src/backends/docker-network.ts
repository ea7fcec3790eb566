import { randomInt } from 'node:crypto'
import { describeError } from '@openoz/protocol'
import type { Engine } from '../engine/engine.ts'
import { EngineFailure, isConflict } from '../engine/engine-failure.ts'
import { createNetwork, inspectNetwork, removeNetwork } from '../engine/networks.ts'
import { TaskFailure } from './backend.ts'

/**
 * A task's own network: a bridge with nothing on it but the task, so that tasks reach what their machine reaches, and not each other. An engine gives
 * out some 30 of them with its defaults; after that they are taken, small ones, from a range of the worker's own.
 */

/** Room for the engine's own end and a dozen of containers that a task may start beside itself. */
const taskBits = 28
const triesInPool = 8

export interface TaskNetworkWish {
  name: string
  labels: Record<string, string>
  /** Range of IPv4 addresses, as a CIDR. */
  pool: string
  signal?: AbortSignal
}

/** Rejects with a TaskFailure when there are no addresses left. */
export async function makeTaskNetwork(engine: Engine, { name, labels, pool, signal }: TaskNetworkWish): Promise<void> {
  for (let attempt = 0; attempt <= triesInPool; attempt++) {
    const subnet = attempt === 0 ? undefined : subnetOf(pool, randomInt(subnetCount(pool)))
    try {
      await createNetwork(engine, { name, labels, subnet, signal })
      return
    } catch (error) {
      if (isConflict(error)) await removeStale(engine, { name, labels, signal })
      else if (!isOutOfAddresses(error)) throw error
    }
  }
  throw new TaskFailure('container_create', describeError('network_pool_exhausted', { pool }), {
    code: 'network_pool_exhausted',
  })
}

/** Of our own execution, from a try whose answer never came. */
async function removeStale(engine: Engine, { name, labels, signal }: Omit<TaskNetworkWish, 'pool'>): Promise<void> {
  const found = await inspectNetwork(engine, name, signal)
  const isOurs = Object.entries(labels).every(([label, value]) => found?.Labels?.[label] === value)
  if (found && !isOurs)
    throw new TaskFailure('container_create', `A network ${name} that is not this worker’s is on the engine already.`)
  await removeNetwork(engine, name, signal)
}

function isOutOfAddresses(error: unknown): boolean {
  return (
    error instanceof EngineFailure &&
    /non-overlapping|address pools? .*(exhausted|fully subnetted)|fully subnetted|pool overlaps|overlaps with|numerical result out of range|networks have same bridge/i.test(
      error.engineSays,
    )
  )
}

/** How many networks of tasks a range holds. */
export function subnetCount(pool: string): number {
  return 2 ** (taskBits - Number(pool.split('/')[1]))
}

/** The network of that number in a range: "10.213.0.16/28" is the second of 10.213.0.0/16. */
export function subnetOf(pool: string, number: number): string {
  const [address = '', bits] = pool.split('/')
  const mask = 2 ** (32 - Number(bits))
  const value = address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0)
  const start = Math.floor(value / mask) * mask + number * 2 ** (32 - taskBits)
  const parts = [24, 16, 8, 0].map((shift) => Math.floor(start / 2 ** shift) % 256)
  return `${parts.join('.')}/${taskBits}`
}
