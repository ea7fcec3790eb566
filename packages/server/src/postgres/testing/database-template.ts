import { execFileSync } from 'node:child_process'
import { startEmbeddedPostgres } from '../embedded-postgres.ts'
import { type ScratchFolder, scratchFolder } from './scratch-folder.ts'

const log = { info() {}, warn() {}, error() {} }

export interface DatabaseTemplate extends ScratchFolder {
  /** A data folder of its own with a stopped database in it. */
  copy(): ScratchFolder
}

/** A first start costs a second and many syncs, so one is made per test file and copied. */
export async function makeDatabaseTemplate(): Promise<DatabaseTemplate> {
  const template = scratchFolder()
  await startEmbeddedPostgres({ dataDir: template.path, log }).then((database) => database.stop())
  const copy = () => {
    const folder = scratchFolder()
    execFileSync('cp', ['-a', `${template.path}/.`, folder.path])
    return folder
  }
  return { ...template, copy, [Symbol.dispose]: template[Symbol.dispose] }
}
