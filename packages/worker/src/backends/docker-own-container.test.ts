import { expect, test } from 'vitest'
import { containerIds, pathOnEngine } from './docker-own-container.ts'

const id = 'c'.repeat(64)

test('a container finds itself by the files that the engine mounts into it', () => {
  const line = `739 720 254:0 /var/lib/docker/containers/${id}/hostname /etc/hostname rw,relatime - ext4 /dev/vda rw`
  expect(containerIds(`${line}\n${line.replaceAll('hostname', 'hosts')}`)).toEqual([id])
  expect(containerIds('22 1 254:0 / / rw - ext4 /dev/vda rw')).toEqual([])
})

test('a machine with containers does not take itself for one of them', () => {
  const shm = `812 28 0:52 / /var/lib/docker/containers/${id}/mounts/shm rw,nosuid - tmpfs shm rw`
  expect(containerIds(shm)).toEqual([])
})

test('a path of a container is one of the engine’s machine where something of that is mounted', () => {
  const mount = (Source: string, Destination: string) => ({ Type: 'volume', Source, Destination, RW: true })
  const own = { Mounts: [mount('/data/v1', '/var/lib/oz'), mount('/data/v2', '/var/lib/oz/relay')] }
  expect(pathOnEngine('/var/lib/oz/tasks', own)).toBe('/data/v1/tasks')
  expect(pathOnEngine('/var/lib/oz/relay/1', own)).toBe('/data/v2/1')
  expect(pathOnEngine('/var/lib/ozone', own)).toBeUndefined()
  expect(pathOnEngine('/anything', undefined)).toBe('/anything')
})
