import { existsSync } from 'node:fs'
import { mkdir, readFile, rmdir } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { userFolders, writePrivateFile } from '@openoz/machine'
import { AppError } from '@openoz/protocol'

/** Where things of an installation are: as root for the machine, else for the user. */
export interface InstallPlaces {
  /** Of bundles, one folder per hash, and the link `current`. */
  bundles: string
  /** Of the programs' names. */
  bin: string
  config: string
}

export function installPlaces(env: NodeJS.ProcessEnv): InstallPlaces {
  if (process.getuid?.() === 0) return { bundles: '/opt/openoz', bin: '/usr/local/bin', config: '/etc/openoz' }
  const local = join(env.HOME || homedir(), '.local')
  // Not among the data: those are the control plane's, and tasks do not see them.
  return { bundles: join(local, 'lib', 'openoz'), bin: join(local, 'bin'), config: userFolders(env).config }
}

/**
 * `installation.json` in the config folder: what there is to update and, in the end, to remove. It is written before the programs are put into place and
 * before a worker is started, so that what was cut short can be removed, too.
 */
export interface Installation {
  /** Those that were not there before, outermost first. */
  folders: string[]
  /** The bundle's hash, where the programs are of a bundle that we have put there. */
  bundle?: string
  worker?: JoinedWorker
}

export interface JoinedWorker {
  serverUrl: string
  workerId: string
  backend: string
  /** What keeps it running: the machine's systemd, the user's, or nobody. */
  keptBy: 'machine' | 'user' | 'nobody'
  stateDir: string
  /** Holds the key. */
  keyFile: string
  /** By which `oz api-key expire` knows the key. */
  keyId?: string
  /** `DOCKER_…` as the worker has them: whoever removes it may mean another engine. */
  engine?: Record<string, string>
}

export const installationFile = ({ config }: InstallPlaces) => join(config, 'installation.json')

export async function readInstallation(places: InstallPlaces): Promise<Installation | undefined> {
  const file = installationFile(places)
  try {
    return JSON.parse(await readFile(file, 'utf8')) as Installation
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new AppError('config_file_invalid', { file, problem: (error as Error).message }, { cause: error })
  }
}

export async function saveInstallation(places: InstallPlaces, installation: Installation): Promise<void> {
  await writePrivateFile(installationFile(places), `${JSON.stringify(installation, null, 2)}\n`)
}

/** Makes it with its parents, and notes which of them were missing. */
export async function makeFolder(
  folder: string,
  installation: Pick<Installation, 'folders'>,
  mode = 0o755,
): Promise<void> {
  const missing: string[] = []
  for (let at = folder; !existsSync(at); at = dirname(at)) missing.unshift(at)
  installation.folders.push(...missing.filter((path) => !installation.folders.includes(path)))
  await mkdir(dirname(folder), { recursive: true })
  await mkdir(folder, { recursive: true, mode })
}

/** Those that are empty. Answers those that are not: something else has been put there. */
export async function removeFolders({ folders }: Pick<Installation, 'folders'>): Promise<string[]> {
  const kept: string[] = []
  for (const folder of folders.toReversed()) {
    await rmdir(folder).catch(({ code }: NodeJS.ErrnoException) => {
      if (code !== 'ENOENT') kept.push(folder)
    })
  }
  return kept.reverse()
}
