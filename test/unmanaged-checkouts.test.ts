import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { git, makeRepository } from './support/agent-fixture.ts'
import { command, isRunning, runIdLine, startPersonAtWork } from './support/person-at-work.ts'

test('only what the run did is in its diff, and what belongs to the person stays on the machine', async () => {
  await using person = await startPersonAtWork({
    steps: [
      command(
        'echo run >> ../../a.txt; echo new > made.txt; git switch -qc run-branch; echo c > c.txt; git add c.txt; git commit -qm Run -- c.txt',
      ),
      { text: 'Done.' },
    ],
  })
  const { cp, workspace } = person
  makeRepository(workspace, { 'a.txt': 'a\n', 'b.txt': 'b\n', 'packages/x/x.txt': 'x\n' })
  git(workspace, 'config', 'user.email', 'p@example.com')
  git(workspace, 'config', 'user.name', 'P')
  git(workspace, 'switch', '-qc', 'private')
  writeFileSync(join(workspace, 'secret.txt'), 'private work\n')
  git(workspace, 'add', '.')
  git(workspace, 'commit', '-qm', 'Private')
  writeFileSync(join(workspace, 'stashed.txt'), 'stashed\n')
  git(workspace, 'stash', '-qu')
  git(workspace, 'switch', '-q', 'main')
  writeFileSync(join(workspace, 'b.txt'), 'own edit\n')
  writeFileSync(join(workspace, '.env.local'), 'TOKEN=1\n')
  mkdirSync(join(workspace, 'inner'))
  makeRepository(join(workspace, 'inner'), { 'i.txt': 'i\n' })
  const before = git(workspace, 'for-each-ref')

  const run = person.oz(['agent', 'run', '-p', 'Do it.'], { cwd: join(workspace, 'packages/x') })
  expect(await run.ended).toMatchObject({ exitCode: 0 })
  const runId = await run.says(runIdLine)
  expect(
    git(workspace, 'for-each-ref')
      .split('\n')
      .filter((ref) => !ref.endsWith('run-branch')),
  ).toEqual(before.split('\n'))
  const saved = await cp.client.runs.workspace(runId)
  expect(saved.left_out).toEqual([])
  expect(saved.repositories).toMatchObject([
    { dir: '.', branch: 'run-branch', commits: 1, files_changed: 3, uncommitted: true },
  ])
  const diff = (await cp.request<string>('GET', `/api/v1/agent/runs/${runId}/workspace/0/diff`)).body
  expect(diff.match(/^diff --git a\/(\S+)/gm)).toEqual(
    ['a.txt', 'packages/x/c.txt', 'packages/x/made.txt'].map((name) => `diff --git a/${name}`),
  )
  const bundle = await fetch(`${cp.url}/api/v1/agent/runs/${runId}/workspace/0/bundle`, {
    headers: { authorization: `Bearer ${cp.adminKey}` },
  })
  const file = join(person.folder, 'run.bundle')
  writeFileSync(file, Buffer.from(await bundle.arrayBuffer()))
  const clone = join(person.folder, 'clone')
  git(person.folder, 'clone', '-q', '--single-branch', `file://${workspace}`, clone)
  git(clone, 'reset', '-q', '--hard', 'origin/run-branch~1')
  git(clone, 'fetch', '-q', file, '+refs/*:refs/from-run/*')
  const names = git(clone, 'for-each-ref', '--format=%(refname)', 'refs/from-run').split('\n')
  expect(names).toEqual(['refs/from-run/oz/head', 'refs/from-run/oz/worktree'])
  expect(git(clone, 'show', 'refs/from-run/oz/worktree:b.txt')).toBe('b')
  expect(git(clone, 'ls-tree', '-r', '--name-only', 'refs/from-run/oz/worktree').split('\n')).toEqual([
    'a.txt',
    'b.txt',
    'packages/x/c.txt',
    'packages/x/made.txt',
    'packages/x/x.txt',
  ])
  expect(git(workspace, 'status', '--short').split('\n')).toEqual([
    ' M a.txt',
    ' M b.txt',
    '?? .env.local',
    '?? inner/',
    '?? packages/x/made.txt',
  ])
})

test('an agent inside another run’s tool is a run of its own, and leaves the other’s processes alone', async () => {
  await using person = await startPersonAtWork({
    handler: ({ body, number }) => {
      const text = JSON.stringify(body)
      if (text.includes('Inner work.') && !text.includes('Outer work.'))
        return number > 0 ? { text: 'Inner done.' } : { text: 'Inner done.' }
      if (!text.includes('Inner done.')) {
        return command(
          'sleep 300 & echo $! > sleeper; "$OZ_CLI" agent run -p "Inner work." --output-format text; kill -0 $(cat sleeper) && echo alive',
        )
      }
      return { text: 'Outer done.' }
    },
  })
  const { cp, workspace } = person
  const saved = join(person.folder, 'home', '.config', 'openoz')
  mkdirSync(saved, { recursive: true })
  const login = JSON.stringify({ server_url: cp.url, api_key: cp.adminKey })
  writeFileSync(join(saved, 'config.json'), login, { mode: 0o600 })
  const run = person.oz(['agent', 'run', '-p', 'Outer work.', '--output-format', 'ndjson'])
  expect(await run.ended).toMatchObject({ exitCode: 0 })
  const result = run.objects().find(({ type }) => type === 'tool_result')
  expect(result).toMatchObject({ exit_code: 0, output: expect.stringContaining('alive') })
  expect(isRunning(Number(readFileSync(join(workspace, 'sleeper'), 'utf8')))).toBe(false)
  const { runs } = await cp.client.runs.list()
  const outer = runs.find(({ prompt }) => prompt === 'Outer work.')
  expect(runs.find(({ prompt }) => prompt === 'Inner work.')).toMatchObject({
    parent_run_id: outer?.run_id,
    state: 'SUCCEEDED',
  })
})

test('flags win over the file, the environment is prepared here, and nothing is saved when nothing shall be', async () => {
  await using person = await startPersonAtWork({ steps: [command('ls; echo x > x.txt'), { text: 'Done.' }] })
  const { cp, folder, workspace } = person
  const origin = makeRepository(join(folder, 'origin', 'shop'), { 'shop.txt': 's\n' })
  const made = await cp.request<{ uid: string }>('POST', '/api/v1/agent/environments', {
    json: { name: 'e', source_repos: [{ url: `file://${origin}` }], setup_commands: ['echo $CI > ci.txt'] },
  })
  writeFileSync(join(folder, 'run.yaml'), 'name: from-file\nbase_prompt: Be brief.\nhost: build-1\n')
  const args = [
    'agent',
    'run',
    '-p',
    '-',
    '-f',
    join(folder, 'run.yaml'),
    '-n',
    'from-flag',
    '-e',
    made.body.uid,
    '--no-snapshot',
  ]
  const run = person.oz(args, { input: 'Do it.\n' })
  const { exitCode, stdout, stderr } = await run.ended
  expect(exitCode).toBe(0)
  expect(stderr).toContain('build-1')
  expect(readFileSync(join(workspace, 'ci.txt'), 'utf8')).toBe('true\n')
  expect(existsSync(join(workspace, 'shop', 'x.txt'))).toBe(true)
  const runId = runIdLine.exec(stdout)?.[1] ?? ''
  const item = await cp.client.runs.get(runId)
  expect(item).toMatchObject({ prompt: 'Do it.', agent_config: { name: 'from-flag', base_prompt: 'Be brief.' } })
  expect((await cp.request('GET', `/api/v1/agent/runs/${runId}/workspace`)).status).toBe(404)
})

test('a conversation goes on here without touching what lies here, and flags for sharing add up', async () => {
  await using person = await startPersonAtWork({
    steps: [command('echo first > a.txt'), { text: 'One.' }, { text: 'Two.' }],
  })
  const { cp, oz, workspace, model } = person
  makeRepository(workspace, { 'a.txt': 'a\n' })
  const first = await oz(['agent', 'run', '-p', 'First.']).ended
  const conversation = /debug ID: (\S+)/.exec(first.stdout)?.[1] ?? ''
  writeFileSync(join(workspace, 'a.txt'), 'mine\n')
  const shares = ['--share', '--share', 'team:edit', '--share=team', '--share', 'A@Example.com']
  const second = oz(['agent', 'run', '--prompt', 'Second.', '--conversation', conversation, ...shares])
  expect(await second.ended).toMatchObject({ exitCode: 0 })
  expect(readFileSync(join(workspace, 'a.txt'), 'utf8')).toBe('mine\n')
  const asked = JSON.stringify(model.requests.at(-1)?.body.messages)
  for (const text of ['First.', 'Second.', 'Nothing was put back there']) expect(asked).toContain(text)
  expect((await cp.client.runs.get(await second.says(runIdLine))).shares).toEqual(
    expect.arrayContaining([
      expect.objectContaining({ subject: 'self' }),
      { subject: 'team', access: 'edit' },
      { subject: 'user', email: 'a@example.com', access: 'view' },
    ]),
  )
})
