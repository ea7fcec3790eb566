import { expect, test } from 'vitest'
import { bundleFolder, findFolder } from './bundle-folder.ts'
import { nodeCommand } from './node-command.ts'

const only =
  (...paths: string[]) =>
  (path: string) =>
    paths.includes(path)
const whole = only('/agent/manifest.json', '/agent/lib/ld.so')

test('code in `app/` beside a manifest and a loader runs from a bundle', () => {
  expect(findFolder('file:///agent/app/oz-ABC.mjs', whole)).toBe('/agent')
  expect(findFolder('file:///agent/app/oz-ABC.mjs', only('/agent/manifest.json'))).toBe(undefined)
  expect(findFolder('file:///agent/dist/oz-ABC.mjs', whole)).toBe(undefined)
  expect(findFolder('file:///agent/app/oz.ts', whole)).toBe(undefined)
})

test('sources are no bundle', () => {
  expect(bundleFolder()).toBe(undefined)
})

test('another Node is started as this one was: by itself, or through its loader', () => {
  expect(nodeCommand('/agent/bin/node')).toEqual(['/agent/bin/node'])
  expect(nodeCommand('/agent/lib/ld.so')).toEqual([
    '/agent/lib/ld.so',
    '--library-path',
    '/agent/lib',
    '/agent/bin/node',
  ])
  expect(nodeCommand()).toEqual([process.execPath])
})
