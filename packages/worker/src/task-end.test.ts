import { chmodSync, existsSync, mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { findProcesses } from '@openoz/machine'
import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './test-support/control-plane.ts'
import { until } from './test-support/until.ts'
import { createFolder, startWorker } from './test-support/worker.ts'

/** Processes that hide as well as they can, each with a beat of its own. */
function hiders(out: string): string {
  const beat = (name: string) => `sh -c 'while :; do echo >>${out}/${name}; sleep 0.05; done'`
  return `trap '' TERM INT HUP
${beat('child')} &
setsid ${beat('session')} >/dev/null 2>&1 &
( setsid ${beat('orphan')} >/dev/null 2>&1 & ) &
env -i PATH="$PATH" setsid ${beat('cleared')} >/dev/null 2>&1 &
kill -STOP $$`
}

const names = ['child', 'session', 'orphan', 'cleared']

async function hiding(cp: ControlPlane, folder: string) {
  const out = join(folder, 'out')
  mkdirSync(out)
  chmodSync(out, 0o777)
  const worker = startWorker(cp, folder, { oz: hiders(out) })
  await worker.listening()
  const assignment = cp.assign()
  const sizes = () => names.map((name) => statSync(join(out, name), { throwIfNoEntry: false })?.size ?? 0)
  await until('all to beat', () => sizes().every((size) => size > 3))
  const lastBeat = () => Math.max(...names.map((name) => statSync(join(out, name)).mtimeMs))
  return { worker, ...assignment, sizes, lastBeat }
}

test.each([
  ['cancelled', 'task_cancellation'],
  ['superseded', 'task_superseded'],
])(
  'of a task that is %s nothing lives two seconds later, wherever it hid, its agent being stopped',
  async (_, type) => {
    using folder = createFolder()
    await using cp = await startControlPlane()
    const { worker, execution_id, task_id, sizes, lastBeat } = await hiding(cp, folder.path)
    await using _worker = worker
    const sentAt = Date.now()
    cp.send({ type, data: { task_id, execution_id } })
    if (type === 'task_superseded') expect(await cp.message('task_gone')).toEqual({ task_id, execution_id })
    else await cp.message('task_finishing')
    const last = sizes()
    expect(lastBeat() - sentAt).toBeLessThan(2_000)
    expect(await findProcesses({ marker: `OZ_EXECUTION_ID=${execution_id}` })).toEqual([])
    await worker.leavesNothing()
    expect(sizes()).toEqual(last)
    if (type === 'task_superseded')
      expect([...cp.messagesOf('task_failed'), ...cp.messagesOf('task_completed')]).toEqual([])
  },
)

test('an offer’s commands run only once the control plane has handled the claim', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane({ answersPings: false })
  await using worker = startWorker(cp, folder.path, { direct: { setupCommand: `touch ${folder.path}/out/setup` } })
  mkdirSync(join(folder.path, 'out'))
  chmodSync(join(folder.path, 'out'), 0o777)
  await worker.listening()
  const { task_id, execution_id } = cp.assign()
  await cp.message('task_claimed')
  await until('its folder', () => worker.leftovers().tasks.length === 1)
  // It was withdrawn meanwhile: the word of that comes before the answer to the ping.
  cp.send({ type: 'task_superseded', data: { task_id, execution_id } })
  expect(await cp.message('task_gone')).toEqual({ task_id, execution_id })
  await worker.leavesNothing()
  expect(existsSync(join(folder.path, 'out', 'setup'))).toBe(false)

  cp.state.answersPings = true
  const taken = cp.assign()
  expect((await cp.outcome(taken.execution_id)).type).toBe('task_completed')
  expect(existsSync(join(folder.path, 'out', 'setup'))).toBe(true)
})

test('a slot is free as soon as nothing of its task runs, whatever is still to be delivered', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  cp.state.takesEvents = false
  await using worker = startWorker(cp, folder.path, {
    maxConcurrentTasks: 1,
    oz: `printf '{"n":1,"type":"notice","at":"2026-01-01T00:00:00.000Z","data":{}}\\n' >"$OZ_SPOOL_DIR/events-000000000001.jsonl"; exit 0`,
    timing: { deliveryTimeoutMs: 60_000 },
  })
  await worker.listening()
  const first = cp.assign()
  await cp.message('task_finishing')
  await until('a free slot', () => cp.messagesOf('worker_status').at(-1)?.data.active === 0)
  // Its own run has to wait, another one has not.
  const again = cp.assign({ task_id: first.task_id })
  expect(await cp.message('task_rejected')).toMatchObject({ execution_id: again.execution_id })
  const other = cp.assign()
  await cp.message('task_claimed', ({ execution_id }) => execution_id === other.execution_id)
  cp.socket().terminate()
  const hello = await until('a second hello', () => cp.messagesOf('worker_hello')[1])
  expect(hello.data.finishing).toContainEqual({ task_id: first.task_id, execution_id: first.execution_id })
  cp.state.takesEvents = true
  for (const { execution_id } of [first, other]) expect((await cp.outcome(execution_id)).type).toBe('task_completed')
  await worker.leavesNothing()
})
