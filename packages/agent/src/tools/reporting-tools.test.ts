import { mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { z } from 'zod'
import { testLimits } from '../../../../test/support/agent-channel-server.ts'
import { makeToolWorkspace } from '../../../../test/support/tool-workspace.ts'
import { ask } from './ask.ts'
import { reportArtifact } from './report-artifact.ts'
import { todo } from './todo.ts'
import { builtInTools, toolsFor } from './tools.ts'

let work: ReturnType<typeof makeToolWorkspace>
beforeEach(() => {
  work = makeToolWorkspace()
})
afterEach(() => work[Symbol.dispose]())

const gif = Buffer.from('R0lGODlhAQABAAAAACwAAAAAAQABAAACAUwAOw==', 'base64')
const report = (input: object) => work.call(reportArtifact, input)

test('a plan is shown with its states', async () => {
  const todos = [
    { title: 'Read', status: 'completed' },
    { title: 'Write', description: 'the parser', status: 'in_progress' },
  ]
  const { result } = await work.call(todo, { todos })
  expect(result).toEqual({ todos: 2, completed: 1 })
  const entries = [
    { content: 'Read', status: 'completed', priority: 'medium' },
    { content: 'Write\nthe parser', status: 'in_progress', priority: 'medium' },
  ]
  expect(work.sink.events).toEqual([{ type: 'plan', data: { entries } }])
})

test('a question ends the turn; one that says nothing, or too much, is none', async () => {
  const output = await work.call(ask, { question: ' Which port? ' })
  expect(output.question).toBe('Which port?')
  expect(output.result.note).toContain('The answer comes as the next message')
  expect(ask.input.safeParse({ question: ' \n' }).success).toBe(false)
  expect(ask.input.safeParse({ question: 'x'.repeat(4_001) }).success).toBe(false)
})

test('artifacts without a file', async () => {
  const pull = { url: 'https://git.example/pull/1', branch: 'oz/fix' }
  const { result } = await report({ artifact_type: 'PULL_REQUEST', ...pull })
  await report({
    artifact_type: 'EXTERNAL_REFERENCE',
    reference_type: 'issue',
    url: 'https://x.example/1',
    title: 'One',
  })
  await report({ artifact_type: 'PLAN', title: 'The plan', content: '# Steps' })
  expect(result.artifact_uid).toMatch(/^[0-9a-f-]{36}$/)
  const uid = expect.any(String)
  expect(work.sink.events.map(({ data }) => data)).toEqual([
    { artifact_type: 'PULL_REQUEST', artifact_uid: result.artifact_uid, ...pull },
    {
      artifact_type: 'EXTERNAL_REFERENCE',
      artifact_uid: uid,
      reference_type: 'issue',
      url: 'https://x.example/1',
      title: 'One',
    },
    { artifact_type: 'PLAN', artifact_uid: uid, document_uid: uid, title: 'The plan', content: '# Steps' },
  ])
})

test('a file is uploaded and described', async () => {
  work.write('out/report.csv', 'a,b\n')
  work.write('shot.dat', gif)
  await report({ artifact_type: 'FILE', path: 'out/report.csv', description: 'All of it' })
  await report({ artifact_type: 'SCREENSHOT', path: 'shot.dat' })
  expect(work.sink.events.map(({ data }) => data)).toMatchObject([
    {
      artifact_type: 'FILE',
      filepath: 'out/report.csv',
      filename: 'report.csv',
      mime_type: 'text/csv',
      description: 'All of it',
      size_bytes: 4,
      blob_id: 'blob-1',
    },
    { artifact_type: 'SCREENSHOT', mime_type: 'image/gif', blob_id: 'blob-1' },
  ])
})

test('a file is kept as what it is', async () => {
  const kept: (string | undefined)[] = []
  const keepOutput = async (_file: string, mediaType?: string) => {
    kept.push(mediaType)
    return 'blob-1'
  }
  work.write('shot.png', gif)
  work.write('a.pdf', '%PDF-1.4')
  await work.call(reportArtifact, { artifact_type: 'SCREENSHOT', path: 'shot.png' }, { keepOutput })
  await work.call(reportArtifact, { artifact_type: 'FILE', path: 'a.pdf' }, { keepOutput })
  expect(kept).toEqual(['image/gif', 'application/pdf'])
})

test('what cannot be reported is refused with the reason, and nothing is announced', async () => {
  const outside = mkdtempSync(join(tmpdir(), 'oz-outside-'))
  try {
    writeFileSync(join(outside, 'x'), 'x')
    symlinkSync(join(outside, 'x'), join(work.toolsFolder, 'link'))
    work.write('text.txt', 'x')
    work.write('.git/config', 'token')
    work.write('large.bin', '')
    truncateSync(join(work.toolsFolder, 'large.bin'), 200 * 1024 * 1024)
    const file = (path: string) => report({ artifact_type: 'FILE', path })
    await expect(file('link')).rejects.toThrow('outside of the workspace')
    await expect(file('.git/config')).rejects.toThrow('belongs to git itself')
    await expect(file('.')).rejects.toThrow('is a folder')
    await expect(file('absent')).rejects.toThrow('absent does not exist')
    await expect(file('large.bin')).rejects.toThrow('at most 104857600 are taken')
    await expect(report({ artifact_type: 'SCREENSHOT', path: 'text.txt' })).rejects.toThrow('is no picture')
    const away = { keepOutput: async () => undefined }
    const failed = work.call(reportArtifact, { artifact_type: 'FILE', path: 'text.txt' }, away)
    await expect(failed).rejects.toThrow('could not be uploaded; nothing was reported')
    expect(work.sink.events).toEqual([])
  } finally {
    rmSync(outside, { recursive: true })
  }
  const problems = (input: object) => reportArtifact.input.safeParse(input).error?.issues.map(({ path }) => path[0])
  expect(problems({ artifact_type: 'PULL_REQUEST' })).toEqual(['url', 'branch'])
  expect(problems({ artifact_type: 'PULL_REQUEST', url: 'javascript:x', branch: 'b' })).toEqual(['url'])
  expect(problems({ artifact_type: 'PLAN', title: 'x' })).toEqual(['content'])
})

test('every tool is described so that any provider takes it', () => {
  for (const { name, input, describe } of builtInTools) {
    const schema = z.toJSONSchema(input)
    expect(schema.type, name).toBe('object')
    expect(JSON.stringify(schema), name).not.toMatch(/"(oneOf|anyOf|allOf|const|\$ref|not)":/)
    expect(describe(testLimits).length, name).toBeLessThan(1_024)
  }
  expect(new Set(builtInTools.map(({ name }) => name)).size).toBe(builtInTools.length)
})

test('a network policy takes web_fetch away', () => {
  const names = (web_fetch: boolean) => toolsFor({ limits: { ...testLimits, web_fetch } }).map(({ name }) => name)
  expect(names(true)).toContain('web_fetch')
  expect(names(false)).not.toContain('web_fetch')
})
