import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, inject } from 'vitest'

/** After each test no server listens, no socket is open and no timer of ours runs: else the test fails, whatever it tested. */

/** What a process of Vitest itself holds, and what a pool of `fetch` may keep for a moment. */
const watched = new Set(['TCPServerWrap', 'TCPSocketWrap', 'PipeWrap', 'Timeout', 'ProcessWrap'])

let before: Map<string, number>

beforeEach((test) => {
  // Opened when first looked at, by whoever does.
  void [process.stdin, process.stdout, process.stderr]
  if (inject('databaseServer') === null) test.skip('no such PostgreSQL on this machine')
  before = resources()
})

afterEach(async () => {
  // Closing takes a few turns of the event loop; a leak stays.
  for (let waitedMs = 0; waitedMs < 3_000 && leaks().length > 0; waitedMs += 20) await sleep(20)
  if (leaks().length > 0) throw new Error(`the test left open: ${leaks().join(', ')}`)
})

function leaks(): string[] {
  return [...resources()]
    .filter(([name, count]) => count > (before.get(name) ?? 0))
    .map(([name, count]) => `${count - (before.get(name) ?? 0)} ${name}`)
}

function resources(): Map<string, number> {
  const counts = new Map<string, number>()
  for (const name of process.getActiveResourcesInfo())
    if (watched.has(name)) counts.set(name, (counts.get(name) ?? 0) + 1)
  return counts
}
