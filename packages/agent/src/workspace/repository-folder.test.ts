import { expect, test } from 'vitest'
import { repositoryFolder } from './repository-folder.ts'

test.each([
  ['owner/repo', 'repo'],
  ['https://example.com/a/b.git/', 'b'],
  ['git@example.com:b.git', 'b'],
  ['file:///srv/my%20repo', 'my repo'],
  ['https://example.com/', 'repository'],
  ['https://example.com/a/%zz.git', '%zz'],
  ['https://example.com/a%2f..', 'repository'],
])('%s is cloned into %s', (url, folder) => {
  expect(repositoryFolder({ url })).toBe(folder)
})
