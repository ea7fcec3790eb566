import { describeError, type TaskAssignment } from '@openoz/protocol'
import type { EngineFacts } from '../engine/engine-check.ts'
import { TaskFailure } from './backend.ts'

/** What the engine limits a container to. */
export interface ContainerLimits {
  nanoCpus: number
  /** Swap is the same number: none on top. */
  memoryBytes: number
}

const gibibyte = 1024 ** 3
/** The engine refuses less. */
const leastCpus = 0.01
const leastMemoryBytes = 6 * 1024 * 1024

/** undefined: the run asks for nothing in particular, and gets what there is. Throws a TaskFailure for more than the engine's machine has. */
export function limitsOf(
  shape: TaskAssignment['instance_shape'],
  { facts, workerId }: { facts: Pick<EngineFacts, 'cpus' | 'memoryBytes'>; workerId: string },
): ContainerLimits | undefined {
  if (!shape) return undefined
  const { vcpus, memory_gb: memoryGb } = shape
  const { cpus, memoryBytes } = facts
  // Engines do not say so of memory, and would let the kernel end some other process for it.
  if (vcpus > cpus || memoryGb * gibibyte > memoryBytes) {
    const wanted = `${vcpus} CPUs and ${memoryGb} GB of memory`
    const available = `${cpus} CPUs and ${Math.floor((memoryBytes / gibibyte) * 10) / 10} GB`
    const message = describeError('instance_shape_too_large', { wanted, available, workerId })
    throw new TaskFailure('unschedulable', message, { code: 'instance_shape_too_large' })
  }
  return {
    nanoCpus: Math.round(Math.max(vcpus, leastCpus) * 1e9),
    memoryBytes: Math.max(Math.floor(memoryGb * gibibyte), leastMemoryBytes),
  }
}
