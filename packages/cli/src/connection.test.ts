import { chmod, stat } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { connect, findLogin, isSameServer } from './connection.ts'
import type { GlobalOptions } from './global-options.ts'
import { readSavedLogin, removeSavedLogin, savedLoginFile, saveLogin } from './saved-login.ts'
import { makeTestHome } from './test-support/run-program.ts'

test('flags win over OZ_ variables, those over WARP_ variables, those over the saved login', async () => {
  await using home = await makeTestHome()
  await saveLogin({ server_url: 'http://saved:1', api_key: 'wk-saved' }, home.env)
  const login = (options: object, env: object) => findLogin(options, { ...home.env, ...env })

  const warp = { WARP_SERVER_ROOT_URL: 'http://warp:1', WARP_API_KEY: 'wk-warp' }
  const both = { ...warp, OZ_SERVER_URL: 'http://oz:1', OZ_API_KEY: 'wk-oz' }
  const flags = { serverUrl: 'http://flag:1', apiKey: 'wk-flag' }
  expect(await login(flags, both)).toMatchObject(flags)
  expect(await login({}, both)).toMatchObject({ serverUrl: 'http://oz:1', apiKey: 'wk-oz' })
  expect(await login({}, warp)).toMatchObject({ serverUrl: 'http://warp:1', apiKey: 'wk-warp' })
  expect(await login({}, { OZ_API_KEY: ' ' })).toMatchObject({ serverUrl: 'http://saved:1', apiKey: 'wk-saved' })
})

test('a key that was meant and is empty is refused, and no other one takes its place', async () => {
  await using home = await makeTestHome()
  await saveLogin({ server_url: 'http://saved:1', api_key: 'wk-saved' }, home.env)
  const globals: GlobalOptions = { outputFormat: 'pretty' }
  for (const variable of ['OZ_API_KEY', 'WARP_API_KEY']) {
    await expect(connect(globals, { ...home.env, [variable]: '' })).rejects.toMatchObject({
      code: 'api_key_variable_empty',
      details: { variable },
    })
  }
  await expect(connect({ ...globals, apiKey: '' }, home.env)).rejects.toMatchObject({ code: 'flag_invalid' })
  await using connection = await connect({ ...globals, apiKey: 'wk-flag' }, { ...home.env, OZ_API_KEY: '' })
  expect(connection.apiKey).toBe('wk-flag')
})

test('the saved key is not sent to another server than the one it was saved with', async () => {
  await using home = await makeTestHome()
  await saveLogin({ server_url: 'http://127.0.0.1:4747', api_key: 'wk-saved' }, home.env)
  expect((await findLogin({ serverUrl: 'http://localhost:4747/' }, home.env)).apiKey).toBe('wk-saved')
  expect((await findLogin({ serverUrl: 'http://127.0.0.1:4748' }, home.env)).apiKey).toBeUndefined()
  expect((await findLogin({ serverUrl: 'https://evil.example' }, home.env)).apiKey).toBeUndefined()
})

test('a key that was pasted without its prefix gets it', async () => {
  await using home = await makeTestHome()
  expect((await findLogin({ apiKey: 'abc' }, home.env)).apiKey).toBe('wk-abc')
})

test('the login file can be read by its owner alone, and is refused otherwise', async () => {
  await using home = await makeTestHome()
  expect(await removeSavedLogin(home.env)).toBe(false)
  await saveLogin({ server_url: 'http://x:1', api_key: 'wk-x' }, home.env)
  expect((await stat(savedLoginFile(home.env))).mode & 0o777).toBe(0o600)
  await chmod(savedLoginFile(home.env), 0o644)
  await expect(readSavedLogin(home.env)).rejects.toMatchObject({ code: 'private_file_exposed' })
  expect(await removeSavedLogin(home.env)).toBe(true)
})

test('the names of this machine are one server, other ports and hosts are not', () => {
  expect(isSameServer('http://localhost:80', 'http://127.0.0.1')).toBe(true)
  expect(isSameServer('http://[::1]:4747', 'http://127.0.0.1:4747/')).toBe(true)
  expect(isSameServer('https://127.0.0.1:4747', 'http://127.0.0.1:4747')).toBe(false)
  expect(isSameServer('unix:/run/oz.sock', 'unix:/run/oz.sock')).toBe(true)
})
