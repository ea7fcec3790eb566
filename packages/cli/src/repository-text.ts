import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

/** A folder of this machine, as people name folders, becomes an address; everything else is one already. */
export function repositoryUrl(text: string): string {
  return /^(\/|\.{1,2}(\/|$))/.test(text) ? pathToFileURL(resolve(text)).href : text
}
