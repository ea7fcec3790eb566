import { type SourceRepo, safeDecode } from '@openoz/protocol'

/** The folder of the workspace that a repository is cloned into. */
export function repositoryFolder({ url, dir }: SourceRepo): string {
  if (dir !== undefined) return dir.replace(/\/+$/, '')
  const path = URL.canParse(url) ? safeDecode(new URL(url).pathname) : url
  const last = path.replace(/\/+$/, '').split(/[/:]/).at(-1) ?? ''
  const name = last.replace(/\.git$/, '')
  return name === '' || name === '.' || name === '..' ? 'repository' : name
}
