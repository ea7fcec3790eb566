import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

export const root = new URL('../../', import.meta.url)

/** What git tracks or would track: every file that is not ignored. Paths below the repository. */
export function repositoryFiles(): string[] {
  // A checkout that belongs to another user, as in some CI systems, is read all the same.
  const args = [
    '-c',
    'safe.directory=*',
    'ls-files',
    '--cached',
    '--others',
    '--exclude-standard',
    '--deduplicate',
    '-z',
  ]
  const listed = execFileSync('git', args, { cwd: fileURLToPath(root), encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 })
  return [...new Set(listed.split('\0'))].filter((path) => path !== '')
}

/** Empty for a file that was removed but is tracked still. */
export function read(path: string): string {
  try {
    return readFileSync(new URL(path, root), 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return ''
    throw error
  }
}

export function markdownFiles(): string[] {
  return repositoryFiles().filter((path) => path.endsWith('.md') && !path.startsWith('demo/sample-project/'))
}

/** The text of code spans and of the lines of code blocks. */
export function codeIn(markdown: string): string[] {
  const blocks = [...markdown.matchAll(/^```.*\n([\s\S]*?)^```/gm)].flatMap((match) => (match[1] ?? '').split('\n'))
  const prose = markdown.replaceAll(/^```.*\n[\s\S]*?^```/gm, '')
  const spans = [...prose.matchAll(/`([^`\n]+)`/g)].map((match) => match[1] ?? '')
  return [...blocks, ...spans].map((code) => code.trim()).filter((code) => code !== '')
}
