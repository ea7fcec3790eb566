import { expect, test } from 'vitest'
import { countOomKills } from './oom-kills.ts'

const machine = { '/proc/vmstat': 'pgfault 1\noom_kill 9\n' }
const count = (files: Record<string, string>) => countOomKills((file) => files[file])

test('in a container its own group is what counts, of either version', () => {
  const second = { '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/memory.events': 'oom 1\noom_kill 2\n' }
  expect(count({ ...machine, ...second })).toBe(2)
  const first = {
    '/proc/self/cgroup': '4:memory:/docker/abc\n',
    '/proc/self/mountinfo': '9 8 0:30 /docker/abc /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n',
    '/sys/fs/cgroup/memory/memory.oom_control': 'oom_kill_disable 0\nunder_oom 0\noom_kill 3\n',
  }
  expect(count({ ...machine, ...first })).toBe(3)
})

test('a service has the group that the system gave it', () => {
  const files = { '/proc/self/cgroup': '0::/system.slice/oz.service\n' }
  const events = { '/sys/fs/cgroup/system.slice/oz.service/memory.events': 'oom_kill 4\n' }
  expect(count({ ...machine, ...files, ...events })).toBe(4)
})

test('on a machine itself all of it counts', () => {
  const whole = '9 8 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n'
  const control = { '/sys/fs/cgroup/memory/memory.oom_control': 'oom_kill 0\n' }
  expect(count({ ...machine, ...control, '/proc/self/cgroup': '4:memory:/\n', '/proc/self/mountinfo': whole })).toBe(9)
  expect(count({ ...machine, '/proc/self/cgroup': '0::/\n' })).toBe(9)
  expect(count({})).toBe(undefined)
})

test('this machine has a count, where it is Linux', () => {
  if (process.platform === 'linux') expect(countOomKills()).toBeGreaterThanOrEqual(0)
})
