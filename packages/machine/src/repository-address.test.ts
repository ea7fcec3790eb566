import { expect, test } from 'vitest'
import { mirrorName, repositoryAddress } from './repository-address.ts'

test.each([
  ['owner/repo', 'https://github.com/owner/repo.git'],
  ['owner/repo.git', 'https://github.com/owner/repo.git'],
  ['https://git.example.com/a/b.git', 'https://git.example.com/a/b.git'],
  ['ssh://git@example.com:2222/a/b', 'ssh://git@example.com:2222/a/b'],
  ['git@example.com:a/b.git', 'git@example.com:a/b.git'],
  ['file:///srv/repo', 'file:///srv/repo'],
])('%s is fetched from %s', (source, url) => {
  expect(repositoryAddress(source)).toMatchObject({ url, shown: url })
})

test('credentials in an address are secrets, and are not shown', () => {
  expect(repositoryAddress('https://me:s%21cret@example.com/r.git')).toMatchObject({
    url: 'https://me:s%21cret@example.com/r.git',
    shown: 'https://example.com/r.git',
    secrets: ['s%21cret', 's!cret'],
  })
  expect(repositoryAddress('https://ghp_token@example.com/r.git')).toMatchObject({
    shown: 'https://example.com/r.git',
    secrets: ['ghp_token', 'ghp_token'],
  })
})

test.each(['ext::sh -c id', 'fd::17', '../up', '--upload-pack=id', 'C:\\repo', 'just-a-name'])(
  '%s is no address of a repository',
  (source) => {
    expect(() => repositoryAddress(source)).toThrow(expect.objectContaining({ code: 'repository_clone_failed' }))
  },
)

test('a mirror is named by the address without credentials', () => {
  const name = mirrorName(repositoryAddress('owner/repo'))
  expect(name).toMatch(/^[0-9a-f]{32}$/)
  expect(mirrorName(repositoryAddress('https://me:secret@github.com/owner/repo.git'))).toBe(name)
  expect(mirrorName(repositoryAddress('owner/other'))).not.toBe(name)
})
