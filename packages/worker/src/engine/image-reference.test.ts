import { AppError } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { parseImage } from './image-reference.ts'

const digest = `sha256:${'0a'.repeat(32)}`

test.each([
  ['debian', 'docker.io', 'library/debian', 'debian:latest'],
  ['debian:12', 'docker.io', 'library/debian', 'debian:12'],
  ['docker.io/library/debian:12', 'docker.io', 'library/debian', 'debian:12'],
  ['index.docker.io/ada/tools', 'docker.io', 'ada/tools', 'ada/tools:latest'],
  ['ada/tools:1.0_rc-2', 'docker.io', 'ada/tools', 'ada/tools:1.0_rc-2'],
  ['ghcr.io/ada/deep/er/tools:x', 'ghcr.io', 'ada/deep/er/tools', 'ghcr.io/ada/deep/er/tools:x'],
  ['localhost/tools', 'localhost', 'tools', 'localhost/tools:latest'],
  ['127.0.0.1:5000/tools', '127.0.0.1:5000', 'tools', '127.0.0.1:5000/tools:latest'],
  ['[::1]:5000/tools:1', '[::1]:5000', 'tools', '[::1]:5000/tools:1'],
  ['Registry/tools', 'Registry', 'tools', 'Registry/tools:latest'],
  [`debian@${digest}`, 'docker.io', 'library/debian', `debian@${digest}`],
  [`ghcr.io/ada/tools:1@${digest}`, 'ghcr.io', 'ada/tools', `ghcr.io/ada/tools@${digest}`],
])('%s is of %s, %s', (image, host, repository, familiar) => {
  expect(parseImage(image)).toMatchObject({ host, repository, familiar })
})

test('only a tag or a digest says which version is meant', () => {
  expect(parseImage('debian').hasVersion).toBe(false)
  expect(parseImage('debian:12').hasVersion).toBe(true)
  expect(parseImage(`debian@${digest}`)).toMatchObject({ hasVersion: true, digest, tag: undefined })
})

test.each([
  ['', 'empty'],
  ['Debian', 'upper case'],
  ['ghcr.io/Ada/tools', 'upper case'],
  ['debian:', 'tag'],
  ['debian:a b', 'tag'],
  [`debian:${'x'.repeat(129)}`, 'tag'],
  ['debian@sha256:12', '64 digits'],
  [`debian@${digest}@${digest}`, '64 digits'],
  ['ada//tools', 'characters'],
  ['ada/tools/', 'characters'],
  ['../etc', 'registry'],
  ['-x', 'characters'],
  ['a&tag=b', 'characters'],
  ['https://ghcr.io/ada/tools', 'registry'],
  [`ada/${'x'.repeat(255)}`, 'longer'],
  ['0a'.repeat(32), 'id'],
])('%j is refused: %s', (image, problem) => {
  expect(() => parseImage(image)).toThrow(AppError)
  expect(() => parseImage(image)).toThrow(problem)
})
