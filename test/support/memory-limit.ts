import { chmodSync, existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** A control group whose processes the kernel ends when they need more than `bytes`: a process enters by writing its id to `procsFile`. */
export interface MemoryLimit extends Disposable {
  procsFile: string
}

/** undefined where no control group can be made: that takes root, and a file system of them that can be written. */
export function limitMemory(bytes: number): MemoryLimit | undefined {
  const isFirst = existsSync('/sys/fs/cgroup/memory')
  const folder = join(isFirst ? '/sys/fs/cgroup/memory' : '/sys/fs/cgroup', `oz-test-${process.pid}`)
  const remove = () => rmdirSync(folder)
  try {
    mkdirSync(folder)
    writeFileSync(join(folder, isFirst ? 'memory.limit_in_bytes' : 'memory.max'), String(bytes))
    if (!isFirst) writeFileSync(join(folder, 'memory.swap.max'), '0')
    // Tasks run as users of their own.
    chmodSync(join(folder, 'cgroup.procs'), 0o666)
    return { procsFile: join(folder, 'cgroup.procs'), [Symbol.dispose]: remove }
  } catch {
    if (existsSync(folder)) remove()
    return undefined
  }
}

/** Shell text that goes into the group and then takes memory until the kernel ends it. */
export function memoryHog({ procsFile }: MemoryLimit): string {
  return `echo $$ > ${procsFile} && exec ${process.execPath} -e "const all = []; for (;;) all.push(Buffer.alloc(1e7, 1))"`
}
