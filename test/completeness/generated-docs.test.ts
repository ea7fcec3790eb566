import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { renderPages, repositoryRoot } from '../../scripts/generate-docs.ts'

test('the generated parts of the documentation are what the generator writes (npx node scripts/generate-docs.ts)', async () => {
  for (const [path, content] of await renderPages()) {
    expect(await readFile(new URL(path, repositoryRoot), 'utf8'), path).toBe(content)
  }
})
