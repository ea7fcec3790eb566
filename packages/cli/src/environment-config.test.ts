import { expect, test } from 'vitest'
import { changedConfig } from './environment-config.ts'

const shop = {
  name: 'shop',
  description: 'The shop.',
  docker_image: 'node:24',
  github_repos: [{ owner: 'acme', repo: 'shop' }],
  source_repos: [{ url: 'https://git.example.com/tools.git', ref: 'v2' }],
  setup_commands: ['npm ci', 'npm run build'],
  variables: { NODE_ENV: 'test' },
}

test('an environment is made of what the flags say, and of nothing else', () => {
  expect(changedConfig({}, { name: 'x' })).toEqual({ name: 'x' })
  const made = changedConfig(
    {},
    {
      repo: ['acme/shop', 'https://git.example.com/tools.git', '/srv/repo', 'acme/shop.git'],
      setupCommand: ['npm ci', 'npm ci'],
      variable: ['A=1', 'B=x=y', 'C='],
    },
  )
  expect(made).toEqual({
    github_repos: [{ owner: 'acme', repo: 'shop' }],
    source_repos: [{ url: 'https://git.example.com/tools.git' }, { url: 'file:///srv/repo' }],
    setup_commands: ['npm ci', 'npm ci'],
    variables: { A: '1', B: 'x=y', C: '' },
  })
})

test('what is not named stays, what is taken away is gone', () => {
  expect(changedConfig(shop, {})).toEqual(shop)
  expect(changedConfig(shop, { setupCommand: ['make'], variable: ['NODE_ENV=dev'] })).toEqual({
    ...shop,
    setup_commands: ['npm ci', 'npm run build', 'make'],
    variables: { NODE_ENV: 'dev' },
  })
  const emptied = changedConfig(shop, {
    description: false,
    dockerImage: false,
    removeRepo: ['https://github.com/Acme/shop.git', 'https://git.example.com/tools.git'],
    removeSetupCommand: ['npm ci', 'npm run build'],
    removeVariable: ['NODE_ENV'],
  })
  expect(emptied).toEqual({ name: 'shop' })
})

test('one can be exchanged for another in one go', () => {
  const { github_repos } = changedConfig(shop, { removeRepo: ['acme/shop'], repo: ['acme/new'] })
  expect(github_repos).toEqual([{ owner: 'acme', repo: 'new' }])
})

test.each([
  [{ removeRepo: ['acme/other'] }, '--remove-repo'],
  [{ removeSetupCommand: ['npm  ci'] }, '--remove-setup-command'],
  [{ removeVariable: ['OTHER'] }, '--remove-variable'],
  [{ variable: ['no value'] }, '--variable'],
  [{ name: ' ' }, '--name'],
  [{ variable: ['1X=2'] }, '--variable'],
])('%j is refused by the flag’s name', (changes, flag) => {
  expect(() => changedConfig(shop, changes)).toThrow(
    expect.objectContaining({ code: 'flag_invalid', details: expect.objectContaining({ option: flag }) }),
  )
})
