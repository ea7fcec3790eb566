import { readFileSync } from 'node:fs'

declare const OZ_VERSION: string

/** The build writes the version into the bundle; from sources it is the package's. */
export function readVersion(): string {
  if (typeof OZ_VERSION === 'string') return OZ_VERSION
  return (JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }).version
}
