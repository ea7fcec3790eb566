import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createRecordingSink } from '../../../../test/support/recording-sink.ts'
import { findSkills, reportSkills } from './skills.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'oz-skills-test-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

function write(path: string, text: string): void {
  mkdirSync(dirname(join(folder, path)), { recursive: true })
  writeFileSync(join(folder, path), text)
}
const head = (name: string, description = 'For it') => `---\nname: ${name}\ndescription: ${description}\n---\n`

test('skills of the four folders are found, with the text behind their heads', async () => {
  write('.agents/skills/deploy/SKILL.md', `${head('deploy', '>\n  Put it\n  there')}\n# Steps\n\n---\nnot a head\n`)
  write('.claude/skills/review/SKILL.md', head('review').replaceAll('\n', '\r\n'))
  write('.warp/skills/a/SKILL.md', `\uFEFF${head('a')}text`)
  write('.codex/skills/b/SKILL.md', `${head('"b: c"')}text`)
  write('.agents/skills/README.md', 'no skill')
  write('skills/elsewhere/SKILL.md', head('elsewhere'))
  expect(await findSkills(folder)).toEqual([
    {
      path: '.agents/skills/deploy/SKILL.md',
      name: 'deploy',
      description: 'Put it there',
      base_prompt: '# Steps\n\n---\nnot a head',
    },
    { path: '.warp/skills/a/SKILL.md', name: 'a', description: 'For it', base_prompt: 'text' },
    { path: '.claude/skills/review/SKILL.md', name: 'review', description: 'For it', base_prompt: '' },
    { path: '.codex/skills/b/SKILL.md', name: 'b: c', description: 'For it', base_prompt: 'text' },
  ])
})

test.each([
  ['no head', 'It does not begin with a head'],
  ['---\nname: [\n---\n', 'Its head is no YAML'],
  ['---\ndescription: d\n---\n', 'Its head has no `name`'],
  ['---\nname: 7\ndescription: d\n---\n', 'Its head has no `name`'],
  ['---\n- a\n---\n', 'Its head has no `name`'],
  ['---\n# nothing\n---\n', 'Its head has no `name`'],
  ['---\nname: n\n---\n', 'Its head has no `description`'],
  [`${head('n')}${'x'.repeat(64 * 1024 + 1)}`, 'more than 65536 bytes'],
])('a malformed one says what is wrong with it: %j', async (text, problem) => {
  write('.agents/skills/it/SKILL.md', text)
  const [skill] = await findSkills(folder)
  expect(skill).toMatchObject({ path: '.agents/skills/it/SKILL.md', base_prompt: '' })
  expect(skill?.error).toContain(problem)
  expect(skill?.name).toMatch(/^(it|n)$/)
})

test('no link leads out of the repository, no pipe is waited for, and links inside of it are read once', async () => {
  const outside = mkdtempSync(join(tmpdir(), 'oz-skills-outside-'))
  try {
    writeFileSync(join(outside, 'SKILL.md'), head('outside'))
    write('.agents/skills/real/SKILL.md', head('real'))
    symlinkSync(outside, join(folder, '.agents/skills/linked'))
    mkdirSync(join(folder, '.agents/skills/pipe'))
    execFileSync('mkfifo', [join(folder, '.agents/skills/pipe/SKILL.md')])
    mkdirSync(join(folder, '.agents/skills/folder/SKILL.md'), { recursive: true })
    mkdirSync(join(folder, '.claude'))
    symlinkSync('../.agents/skills', join(folder, '.claude/skills'))
    expect((await findSkills(folder)).map(({ name }) => name)).toEqual(['real'])
  } finally {
    rmSync(outside, { recursive: true })
  }
})

test('a repository is reported with its address, up to what the control plane takes; one without skills too', async () => {
  const empty = join(folder, 'empty')
  mkdirSync(empty)
  for (let i = 100; i < 220; i++) write(`.agents/skills/s${i}/SKILL.md`, `${head(`s${i}`)}text`)
  const sink = createRecordingSink()
  const repository = { dir: 'a', base: null, isKept: false }
  await reportSkills(
    [
      { ...repository, folder: empty, url: 'https://git.test/empty' },
      { ...repository, folder, url: 'https://git.test/full' },
      { ...repository, folder },
      { ...repository, folder: join(folder, 'gone'), url: 'https://git.test/gone' },
    ],
    sink,
  )
  // One that could not be read is not said to have none.
  expect(sink.events).toHaveLength(2)
  const [none, full] = sink.events
  expect(none).toEqual({ type: 'skills_found', data: { repository_url: 'https://git.test/empty', skills: [] } })
  expect(full).toMatchObject({ type: 'skills_found', data: { repository_url: 'https://git.test/full' } })
  expect(full?.type === 'skills_found' && full.data.skills).toHaveLength(100)

  const large = 'x'.repeat(60 * 1024)
  for (let i = 100; i < 110; i++) write(`.agents/skills/s${i}/SKILL.md`, head(`s${i}`) + large)
  expect(await findSkills(folder)).toHaveLength(4)
})
