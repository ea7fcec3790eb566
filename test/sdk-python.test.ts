import { execFile } from 'node:child_process'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { startSdkScene } from './support/sdk-scene.ts'
import { startUnreliableRelay } from './support/unreliable-relay.ts'

const run = promisify(execFile)

const sdk = 'oz-agent-sdk==0.15.0'
const calls = fileURLToPath(new URL('./support/sdk-calls.py', import.meta.url))
const cache = fileURLToPath(new URL('../node_modules/.cache/openoz-python-sdk/', import.meta.url))

/** Python with the SDK, made once. Rejects where there is no Python or its packages cannot be reached. */
async function pythonWithSdk(): Promise<string> {
  const python = join(cache, 'bin', 'python')
  const marker = join(cache, 'installed')
  if ((await readFile(marker, 'utf8').catch(() => '')) === sdk) return python
  await rm(cache, { recursive: true, force: true })
  await mkdir(cache, { recursive: true })
  await run('python3', ['-m', 'venv', cache])
  await run(python, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--retries', '1', sdk])
  await writeFile(marker, sdk)
  return python
}

test('the published SDK for Python, unchanged, makes every call whose route exists', { timeout: 180_000 }, async ({
  skip,
}) => {
  let python = ''
  try {
    python = await pythonWithSdk()
  } catch (error) {
    if (process.env.CI === 'true' && !process.env.WITHOUT_PYPI) throw error
    skip(
      `${sdk} cannot be installed here: ${error instanceof Error ? error.message.split('\n').slice(0, 3).join(' ') : ''}`,
    )
  }
  await using scene = await startSdkScene()
  await using relay = await startUnreliableRelay(scene.cp.url, { losesAnswers: 2 })
  const { uid: userId } = await scene.cp.client.whoami()
  const { cp, baseUrl, [Symbol.asyncDispose]: _, ...ids } = scene
  const env = {
    PATH: process.env.PATH,
    OZ_API_BASE_URL: baseUrl,
    WARP_API_KEY: cp.adminKey,
    SCENE: JSON.stringify({ ...ids, userId, relayUrl: relay.url }),
  }
  const { stderr } = await run(python, [calls], { env })
  expect(stderr).toBe('')
  expect(relay.posts).toBe(3)
})
