import { homedir } from 'node:os'
import { posix, win32 } from 'node:path'

/**
 * Our folders among those of a user's programs: settings (and the saved login), data, and what only this machine is concerned with. The XDG
 * variables count everywhere; without them macOS has the folders of Linux, as its command line programs do, and Windows its own. Nothing is
 * made here.
 */
export interface UserFolders {
  config: string
  data: string
  state: string
}

export function userFolders(
  env: NodeJS.ProcessEnv,
  { platform = process.platform, home = homedir() }: { platform?: NodeJS.Platform; home?: string } = {},
): UserFolders {
  const { XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_STATE_HOME } = env
  if (platform === 'win32') {
    // Settings follow a person to other machines; a database and keys of this one must not.
    const roaming = env.APPDATA || win32.join(home, 'AppData', 'Roaming')
    const local = env.LOCALAPPDATA || win32.join(home, 'AppData', 'Local')
    return {
      config: win32.join(XDG_CONFIG_HOME || roaming, 'openoz'),
      data: XDG_DATA_HOME ? win32.join(XDG_DATA_HOME, 'openoz') : win32.join(local, 'openoz', 'data'),
      state: XDG_STATE_HOME ? win32.join(XDG_STATE_HOME, 'openoz') : win32.join(local, 'openoz', 'state'),
    }
  }
  const own = env.HOME || home
  return {
    config: posix.join(XDG_CONFIG_HOME || posix.join(own, '.config'), 'openoz'),
    data: posix.join(XDG_DATA_HOME || posix.join(own, '.local', 'share'), 'openoz'),
    state: posix.join(XDG_STATE_HOME || posix.join(own, '.local', 'state'), 'openoz'),
  }
}
