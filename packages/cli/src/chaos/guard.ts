import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { text as readText } from 'node:stream/consumers'
import { sleep } from '@openoz/machine'
import { AppError } from '@openoz/protocol'
import { createLogger } from '../log.ts'
import { ozProgram } from '../program-files.ts'
import { endOwnProcesses } from './own-processes.ts'
import { openRoundFolder, type RoundFolder, removeRoundFolder } from './round-folder.ts'

/**
 * A process that does nothing while the round lives. However the round's own process ends, the pipe between the two ends with it, and the guard
 * ends everything that was started. It has a session of its own, so that a Ctrl-C does not reach it.
 */
export interface Guard extends AsyncDisposable {
  readonly pid: number | undefined
}

export function startGuard(folder: RoundFolder): Guard {
  const child: ChildProcess = spawn(process.execPath, [ozProgram, 'chaos', '--guard', folder.path], {
    detached: true,
    stdio: ['pipe', 'ignore', 'inherit'],
  })
  child.on('error', () => {})
  child.stdin?.on('error', () => {})
  return {
    pid: child.pid,
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return
      const exited = once(child, 'exit')
      child.stdin?.end(roundIsOver)
      await exited
    },
  }
}

const roundIsOver = 'over'

/** What the guard does. */
export async function guardRound(path: string): Promise<void> {
  const folder = openRoundFolder(path)
  if (!folder) throw new AppError('flag_invalid', { option: '--guard', problem: `${path} is no round’s folder` })
  const said = await readText(process.stdin)
  await endOwnProcesses(folder)
  await clearOthersEngine(folder)
  // Its folder is the round's own to remove, while there is a round.
  if (said === roundIsOver) return
  await untilEngineIsGone(folder)
  removeRoundFolder(folder)
}

const engineGoneWithinMs = 30_000

/** Its keeper removes its folder, and two that remove the same are in each other's way. */
async function untilEngineIsGone({ engine }: RoundFolder): Promise<void> {
  const giveUpAt = performance.now() + engineGoneWithinMs
  while (existsSync(engine) && performance.now() < giveUpAt) await sleep(100)
}

/** An engine of the round's own goes with its processes; on somebody else's its containers stay, unless the round itself has removed them. */
async function clearOthersEngine(folder: RoundFolder): Promise<void> {
  if (!existsSync(folder.engineFile)) return
  const { socket } = JSON.parse(readFileSync(folder.engineFile, 'utf8')) as { socket: string }
  const { clearEngineAt } = await import('./round-engine.ts')
  await clearEngineAt(socket, folder, createLogger({ name: 'chaos', level: 'error', env: {} }))
}
