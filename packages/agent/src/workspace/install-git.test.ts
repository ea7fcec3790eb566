import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createRecordingSink } from '../../../../test/support/recording-sink.ts'
import { provideGit } from './install-git.ts'

/** An image's programs, which are scripts here: there is no git and no package manager but what a test puts in. */
let bin: string
beforeEach(() => {
  bin = join(mkdtempSync(join(tmpdir(), 'oz-install-git-')), 'bin')
  mkdirSync(bin)
})
afterEach(() => rmSync(join(bin, '..'), { recursive: true }))

const put = (name: string, script: string) => writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })

function provide({ backend = 'docker' }: { backend?: string } = {}) {
  const sink = createRecordingSink()
  const env = { PATH: bin, OZ_WORKER_BACKEND: backend }
  const done = provideGit({ env, sink, signal: new AbortController().signal })
  return Object.assign(done, { sink })
}

const stepsOf = ({ sink }: ReturnType<typeof provide>) =>
  sink.events.flatMap((event) => (event.type === 'setup_step' ? [`${event.data.title}: ${event.data.status}`] : []))

test('an image that has git is left alone, and so is the machine of a worker without containers', async () => {
  const direct = provide({ backend: 'direct' })
  await direct
  put('git', '')
  const container = provide()
  await container
  expect([...stepsOf(direct), ...stepsOf(container)]).toEqual([])
})

test('root has it installed by the image’s package manager, as a step of the run', async (context) => {
  if (process.getuid?.() !== 0) context.skip()
  put('apk', `echo "$*" >${bin}/said; printf '#!/bin/sh\\n' >${bin}/git; /bin/chmod 755 ${bin}/git`)
  const providing = provide()
  await providing
  expect(stepsOf(providing)).toEqual(['Install git: started', 'Install git: completed'])
})

test('the run fails with what was tried', async (context) => {
  await expect(provide()).rejects.toThrow('neither the image nor the agent bundle has it')
  if (process.getuid?.() !== 0) context.skip()
  put('apt-get', 'echo "E: no network" >&2; exit 100')
  const providing = provide()
  await expect(providing).rejects.toMatchObject({ code: 'git_missing' })
  await expect(providing).rejects.toThrow(/apt-get update -qq` failed \(E: no network\)/)
  expect(stepsOf(providing)).toEqual(['Install git: started', 'Install git: failed'])
})
