import { expect, test } from 'vitest'
import { makeTestHome, runOz } from '../test-support/run-program.ts'

test('what cannot be killed, and a round of nothing, are refused before anything starts', async () => {
  await using home = await makeTestHome()
  const kinds = await runOz(['chaos', '--kill', 'worker,disk'], home.env)
  expect(kinds).toMatchObject({ exitCode: 2, stdout: '' })
  expect(kinds.stderr).toContain('disk is none of worker, agent, server, database, network, engine')
  expect(await runOz(['chaos', '--runs', '0'], home.env)).toMatchObject({ exitCode: 2 })
})

test('an engine is only killed where the round has one of its own', async () => {
  await using home = await makeTestHome()
  const refused = async (args: string[]) => (await runOz(['chaos', ...args], home.env)).stderr
  expect(await refused(['--kill', 'worker,engine'])).toContain('without --backend docker there is no engine')
  expect(await refused(['--backend', 'docker', '--image', 'debian:12', '--kill', 'engine'])).toContain(
    'the engine is somebody else’s, and stays as it is',
  )
  expect(await refused(['--image', 'debian:12'])).toContain('it is for --backend docker')
  expect(await refused(['--backend', 'podman'])).toContain('direct, docker')
})

test('an engine on another machine is refused', async () => {
  await using home = await makeTestHome()
  const args = ['chaos', '--backend', 'docker', '--runs', '1', '--kill', 'none', '--image', 'nobody/has:this']
  const remote = await runOz(args, { ...home.env, DOCKER_HOST: 'tcp://127.0.0.1:1' })
  expect(remote.exitCode).toBe(2)
  expect(remote.stderr).toContain('a round needs an engine of this machine, and DOCKER_HOST names tcp://127.0.0.1:1')
})

test('the help shows an example, and nothing of what the round says to itself', async () => {
  await using home = await makeTestHome()
  const { stdout } = await runOz(['chaos', '--help'], home.env)
  expect(stdout).toContain('oz chaos --runs 300 --seed 7')
  expect(stdout).not.toContain('--guard')
  expect((await runOz(['server', '--help'], home.env)).stdout).not.toContain('--no-notify')
})

test('a guard of no round ends nothing', async () => {
  await using home = await makeTestHome()
  const { exitCode, stderr } = await runOz(['chaos', '--guard', home.folder], home.env)
  expect(exitCode).toBe(2)
  expect(stderr).toContain('is no round’s folder')
})
