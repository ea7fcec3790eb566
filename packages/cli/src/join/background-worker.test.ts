import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { findInBackground, saveBackgroundWorker, startInBackground, stopInBackground } from './background-worker.ts'

let stateDir: string
beforeEach(() => {
  stateDir = mkdtempSync(join(tmpdir(), 'oz-background-'))
})
afterEach(async () => {
  await stopInBackground({ stateDir }, 'SIGTERM')
  rmSync(stateDir, { recursive: true, force: true })
})

/** A process that does what a worker does towards whoever starts it. */
async function start(script: string) {
  const file = join(stateDir, 'worker.json')
  await saveBackgroundWorker(file, { command: [process.execPath, '-e', script], environment: { PATH: '/bin' } })
  return startInBackground(file, { stateDir })
}
const stays = `
  const gone = () => { console.log('alone'); process.exit(1) }
  process.once('disconnect', gone)
  process.on('message', (message) => { if (message === 'stay') process.off('disconnect', gone) })
  setInterval(() => {}, 1000)`
const log = () => readFileSync(join(stateDir, 'worker.log'), 'utf8')

test('that it is connected it says by its channel, not by its log, and outlives who started it', async () => {
  const { pid, problem } = await start(`${stays}; process.send({ type: 'connected' })`)
  expect(problem).toBeUndefined()
  expect(await findInBackground({ stateDir })).toBe(pid)
  expect(log()).toBe('')
  expect(await stopInBackground({ stateDir }, 'SIGTERM')).toBe(true)
  expect(log()).toBe('')
})

test('one that ends at once is told of with its last words, also when somebody emptied the log', async () => {
  const { problem } = await start(`console.log(JSON.stringify({ msg: 'no such key' })); process.exitCode = 1`)
  expect(problem).toMatchObject({ code: 'worker_not_running', message: expect.stringContaining('no such key') })
  writeFileSync(join(stateDir, 'worker.log'), 'x'.repeat(1000))
  const emptied = await start(`fs.truncateSync(${JSON.stringify(join(stateDir, 'worker.log'))})`)
  expect(emptied.problem).toMatchObject({ code: 'worker_not_running' })
})

test('a log that has become long is that of before at the next start', async () => {
  writeFileSync(join(stateDir, 'worker.log'), 'old')
  truncateSync(join(stateDir, 'worker.log'), 21 * 1024 * 1024)
  await start(`${stays}; console.log('new'); process.send({ type: 'connected' })`)
  expect(log()).toBe('new\n')
  expect(readFileSync(join(stateDir, 'worker.log.1'), 'utf8')).toMatch(/^old/)
})
