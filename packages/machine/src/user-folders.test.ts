import { expect, test } from 'vitest'
import { userFolders } from './user-folders.ts'

const appData = { APPDATA: 'C:\\Users\\p\\AppData\\Roaming', LOCALAPPDATA: 'D:\\Local' }

test.each(['linux', 'darwin'] as const)('on %s our folders lie where XDG has them', (platform) => {
  expect(userFolders({ HOME: '/home/ada', ...appData }, { platform })).toEqual({
    config: '/home/ada/.config/openoz',
    data: '/home/ada/.local/share/openoz',
    state: '/home/ada/.local/state/openoz',
  })
  const xdg = { HOME: '/home/ada', XDG_CONFIG_HOME: '/c', XDG_DATA_HOME: '/d', XDG_STATE_HOME: '/s' }
  expect(userFolders(xdg, { platform })).toEqual({ config: '/c/openoz', data: '/d/openoz', state: '/s/openoz' })
})

test('without HOME the home of the user counts, and an empty variable is none', () => {
  const { config } = userFolders({ HOME: '', XDG_CONFIG_HOME: '' }, { platform: 'linux', home: '/home/me' })
  expect(config).toBe('/home/me/.config/openoz')
})

test('on Windows the login roams with its user, and data and state stay on the machine', () => {
  expect(userFolders(appData, { platform: 'win32' })).toEqual({
    config: 'C:\\Users\\p\\AppData\\Roaming\\openoz',
    data: 'D:\\Local\\openoz\\data',
    state: 'D:\\Local\\openoz\\state',
  })
  // As a service may be started; and HOME is what Git's bash has, in its own notation.
  expect(userFolders({ HOME: '/c/Users/p' }, { platform: 'win32', home: 'C:\\Users\\p' })).toEqual({
    config: 'C:\\Users\\p\\AppData\\Roaming\\openoz',
    data: 'C:\\Users\\p\\AppData\\Local\\openoz\\data',
    state: 'C:\\Users\\p\\AppData\\Local\\openoz\\state',
  })
  expect(userFolders({ ...appData, XDG_DATA_HOME: 'E:\\d' }, { platform: 'win32' }).data).toBe('E:\\d\\openoz')
})
