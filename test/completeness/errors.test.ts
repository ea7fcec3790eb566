import { errorSpecs, platformErrorCodes } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { read, repositoryFiles } from './documents.ts'

const codes = Object.keys(errorSpecs)

test('every error code has a section in docs/errors.md, and every section an error code', () => {
  const sections = [...read('docs/errors.md').matchAll(/^### (\S+)$/gm)].map((match) => match[1])
  expect(sections.toSorted()).toEqual(codes.toSorted())
})

test('every error says what to do, and has a platform code that the SDKs know', () => {
  for (const [code, { message, remedy, platform }] of Object.entries(errorSpecs)) {
    expect(message, code).not.toBe('')
    expect(remedy, code).toMatch(/\.$/)
    expect(platformErrorCodes, code).toContain(platform)
  }
})

test('an error code in the documentation that looks like one exists', () => {
  const pages = repositoryFiles().filter((path) => /^(README|docs\/).*\.md$/.test(path))
  const named = pages.flatMap((path) => [...read(path).matchAll(/errors\.md#([\w-]+)/g)].map((match) => match[1]))
  for (const name of named) expect([...codes, 'failure-reasons-of-workers'], `errors.md#${name}`).toContain(name)
})
