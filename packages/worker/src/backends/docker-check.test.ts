import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { readDockerOptions } from '../docker-options.ts'
import { permittedVolumes } from './docker-check.ts'

function place() {
  const folder = mkdtempSync('/tmp/oz-paths-')
  mkdirSync(join(folder, 'allowed/a'), { recursive: true })
  mkdirSync(join(folder, 'other'))
  return { folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true }) }
}

const sources = async (volumes: string[], allowed: string[], isLocal = true) =>
  (await permittedVolumes(readDockerOptions({ volumes, allowed_host_paths: allowed }, {}), { isLocal })).map(
    ({ source }) => source,
  )
const refused = { code: 'host_path_not_allowed' }

test('a folder that a task has replaced by a link is not mounted for the next one', async () => {
  using at = place()
  const allowed = join(at.folder, 'allowed')
  const volumes = [`${allowed}:/c`, `${allowed}/a:/a`]
  expect(await sources(volumes, [allowed])).toEqual([allowed, `${allowed}/a`])
  rmSync(`${allowed}/a`, { recursive: true })
  symlinkSync('/', `${allowed}/a`)
  await expect(sources(volumes, [allowed])).rejects.toMatchObject(refused)
})

test('what is mounted is what was looked at: the folder that a link leads to', async () => {
  using at = place()
  const allowed = join(at.folder, 'allowed')
  symlinkSync(`${allowed}/a`, join(at.folder, 'link'))
  expect(await sources([`${at.folder}/link:/x`], [allowed])).toEqual([`${allowed}/a`])
  symlinkSync('circle', `${allowed}/circle`)
  await expect(sources([`${allowed}/circle:/x`], [allowed])).rejects.toMatchObject(refused)
})

test('paths of another machine are compared as they are written, with or without a slash at their end', async () => {
  expect(await sources(['/srv/cache/:/x', 'build:/build'], ['/srv/'], false)).toEqual(['/srv/cache', 'build'])
  expect(await sources(['/srv:/x'], ['/srv//'], false)).toEqual(['/srv'])
  await expect(sources(['/srv-2:/x'], ['/srv/'], false)).rejects.toMatchObject(refused)
  await expect(sources(['/srv/../etc:/x'], ['/srv/'], false)).rejects.toMatchObject(refused)
})
