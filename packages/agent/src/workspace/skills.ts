import { constants } from 'node:fs'
import { open, readdir, realpath } from 'node:fs/promises'
import { join, relative, sep } from 'node:path'
import { type FoundSkill, maxSkillBytes, maxSkills, maxSkillsBytes } from '@openoz/protocol'
import type { EventSink } from '../event-sink.ts'
import type { Repository } from './clone.ts'

/** Where repositories keep skills: one folder for each, with a `SKILL.md` in it. */
const skillFolders = ['.agents/skills', '.warp/skills', '.claude/skills', '.codex/skills']

/** The head beside the text. */
const maxHeadBytes = 8 * 1024

/** Says which skills the repositories hold. Never rejects: a run does not need them. */
export async function reportSkills(repositories: readonly Repository[], sink: EventSink): Promise<void> {
  for (const { folder, url } of repositories) {
    if (url === undefined) continue
    const skills = await findSkills(folder).catch(() => undefined)
    // None too: there may have been some.
    if (skills) sink.emit({ type: 'skills_found', data: { repository_url: url, skills } })
  }
}

/** As many as there is room for, in the order of the folders and of their names. */
export async function findSkills(repository: string): Promise<FoundSkill[]> {
  const root = await realpath(repository)
  const files: string[] = []
  for (const folder of skillFolders) {
    const names = await readdir(join(root, folder)).catch(() => [])
    for (const name of names.toSorted()) files.push(join(root, folder, name, 'SKILL.md'))
  }
  const skills: FoundSkill[] = []
  // Links to one another are read once.
  const seen = new Set<string>()
  let room = maxSkillsBytes
  for (const file of files) {
    const real = await realpath(file).catch(() => undefined)
    // A link that leads out of the repository would publish a file of the machine.
    if (real === undefined || seen.has(real) || !real.startsWith(root + sep)) continue
    seen.add(real)
    const text = await textOf(real).catch(() => undefined)
    if (text === undefined) continue
    const path = relative(root, file)
    const skill = await readSkill(path, text)
    room -= Buffer.byteLength(skill.base_prompt) + Buffer.byteLength(skill.description)
    if (room < 0 || skills.length === maxSkills) break
    if (path.length <= 512) skills.push(skill)
  }
  return skills
}

async function textOf(file: string): Promise<string | undefined> {
  // Opening a pipe would wait for somebody who writes to it.
  await using handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK)
  if (!(await handle.stat()).isFile()) return undefined
  const room = Buffer.alloc(maxHeadBytes + maxSkillBytes + 1)
  const { bytesRead } = await handle.read(room, 0, room.byteLength, 0)
  return room.toString('utf8', 0, bytesRead)
}

/** The YAML between the two lines of dashes, and what is behind them. */
const headAndText = /^\uFEFF?---[ \t]*\r?\n([\s\S]*?)\r?\n---[ \t]*(?:\r?\n|$)([\s\S]*)$/

async function readSkill(path: string, content: string): Promise<FoundSkill> {
  const unnamed = path.split(sep).at(-2) ?? path
  const malformed = (error: string, known: { name?: string; description?: string } = {}): FoundSkill => ({
    path,
    name: known.name ?? unnamed.slice(0, 255),
    description: known.description ?? '',
    base_prompt: '',
    error,
  })
  const [, head, text = ''] = headAndText.exec(content) ?? []
  if (head === undefined) return malformed('It does not begin with a head between two lines of `---`.')
  let fields: unknown
  try {
    // Only when there is one: most repositories have none.
    const { parse } = await import('yaml')
    fields = parse(head)
  } catch (error) {
    return malformed(`Its head is no YAML: ${(error as Error).message.split('\n')[0]?.slice(0, 500)}`)
  }
  const field = (key: string, maxCharacters: number) => {
    const value = (fields as Record<string, unknown> | null)?.[key]
    const usable = typeof value === 'string' ? value.trim().slice(0, maxCharacters) : ''
    return usable === '' ? undefined : usable
  }
  const name = field('name', 255)
  const description = field('description', 4096)
  if (name === undefined) return malformed('Its head has no `name`.', { ...(description ? { description } : {}) })
  if (description === undefined) return malformed('Its head has no `description`.', { name })
  const base_prompt = text.trim()
  if (Buffer.byteLength(base_prompt) > maxSkillBytes)
    return malformed(`Its text has more than ${maxSkillBytes} bytes.`, { name, description })
  return { path, name, description, base_prompt }
}
