import { expect, test } from 'vitest'
import { addressForm, repositoriesOf, repositoryAddress } from './repositories.ts'

const urls = (...source_repos: { url: string; ref?: string; dir?: string }[]) =>
  repositoriesOf({ github_repos: [{ owner: 'Acme', repo: 'Shop' }], source_repos })

test('the two spellings of an environment are one list, in order', () => {
  expect(urls({ url: 'https://git.example.com/tools.git' })).toEqual([
    { url: 'Acme/Shop' },
    { url: 'https://git.example.com/tools.git' },
  ])
  expect(repositoriesOf(undefined)).toEqual([])
})

test.each([
  'acme/shop',
  'https://github.com/acme/shop',
  'https://github.com/acme/shop.git/',
  'https://someone@GitHub.com/acme/shop.git',
  'git@github.com:acme/shop.git',
  'ssh://git@github.com/acme/SHOP',
])('%s is the same repository once more', (url) => {
  expect(urls({ url })).toEqual([{ url: 'Acme/Shop' }])
  expect(urls({ url, dir: 'shop/' })).toEqual([{ url: 'Acme/Shop' }])
})

test.each([
  { url: 'acme/shop', ref: 'v2' },
  { url: 'acme/shop', dir: 'old' },
  { url: 'https://gitlab.com/acme/shop.git' },
  { url: 'file:///srv/acme/shop' },
  { url: 'no address at all' },
])('%j is another one', (source) => {
  expect(urls(source)).toEqual([{ url: 'Acme/Shop' }, source])
})

test('an address is what an agent can clone from', () => {
  const good = ['acme/shop', 'https://h/r', 'ssh://git@h/r', 'git@h.example:r.git', 'host:r', 'file:///srv/r']
  expect(good.filter((url) => !addressForm(url))).toEqual([])
  const bad = [
    '',
    'shop',
    'not a repo',
    '../shop',
    'acme/..',
    'ext::sh',
    '-x:y',
    'ftp://h/r',
    '/srv/r',
    'C:\\r',
    'a:b::c',
  ]
  expect(bad.filter((url) => addressForm(url) ?? repositoryAddress(url))).toEqual([])
})

test('folders of a machine that differ in case are two', () => {
  const sources = [{ url: 'file:///srv/Shop' }, { url: 'file:///srv/shop' }, { url: 'file:///srv/shop.git' }]
  expect(repositoriesOf({ source_repos: sources })).toEqual(sources.slice(0, 2))
})
