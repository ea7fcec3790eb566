import { expect, test } from 'vitest'
import { parsePasswd } from './docker-user.ts'

test('the first line of a name counts, and lines that are none are passed over', () => {
  const users = parsePasswd(
    'root:x:0:0:root:/root:/bin/sh\n# no\napp:x:1234:50::/home:\napp:x:1:1::/:\nbad:x:-1:0::/:\n',
  )
  expect(users.get('app')).toEqual({ uid: 1234, gid: 50 })
  expect(users.get('root')).toEqual({ uid: 0, gid: 0 })
  expect(users.has('bad')).toBe(false)
})
