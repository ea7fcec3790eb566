import { expect, test } from 'vitest'
import { type DockerBlock, readDockerOptions } from '../docker-options.ts'
import { containerSpec, imageVolumePaths, mountsEngineSocket, type SpecInput } from './docker-spec.ts'

function input(block: Parameters<typeof readDockerOptions>[0] = {}, more: Partial<SpecInput> = {}): SpecInput {
  return {
    image: { id: 'sha256:1', config: {} },
    command: ['/agent/bin/oz-task', 'oz', 'agent', 'run'],
    environment: { TASK_ID: 't' },
    labels: { 'oz-worker-id': 'w1' },
    options: readDockerOptions(block, {}),
    network: 'oz-1',
    volumes: { agent: 'oz-agent-1', control: 'oz-1-control', workspace: 'oz-1-workspace', sidecars: [], ofImage: [] },
    relay: undefined,
    limits: undefined,
    ...more,
  }
}

test('a container is kept within its bounds unless the operator says otherwise', () => {
  expect(containerSpec(input())).toMatchInlineSnapshot(`
    {
      "AttachStderr": false,
      "AttachStdin": false,
      "AttachStdout": false,
      "Cmd": [
        "/agent/bin/oz-task",
        "oz",
        "agent",
        "run",
      ],
      "Entrypoint": [],
      "Env": [
        "TASK_ID=t",
      ],
      "Healthcheck": {
        "Test": [
          "NONE",
        ],
      },
      "HostConfig": {
        "AutoRemove": false,
        "Binds": [],
        "CapAdd": [
          "CHOWN",
          "DAC_OVERRIDE",
          "FOWNER",
          "FSETID",
          "KILL",
          "NET_BIND_SERVICE",
          "SETGID",
          "SETUID",
        ],
        "CapDrop": [
          "ALL",
        ],
        "Init": true,
        "LogConfig": {
          "Config": {
            "max-file": "1",
            "max-size": "10m",
          },
          "Type": "json-file",
        },
        "Mounts": [
          {
            "ReadOnly": true,
            "Source": "oz-agent-1",
            "Target": "/agent",
            "Type": "volume",
            "VolumeOptions": {
              "NoCopy": true,
            },
          },
          {
            "Source": "oz-1-control",
            "Target": "/run/openoz",
            "Type": "volume",
            "VolumeOptions": {
              "NoCopy": true,
            },
          },
          {
            "Source": "oz-1-workspace",
            "Target": "/workspace",
            "Type": "volume",
          },
        ],
        "NetworkMode": "oz-1",
        "PidsLimit": 4096,
        "ReadonlyRootfs": false,
        "RestartPolicy": {
          "Name": "no",
        },
        "SecurityOpt": [
          "no-new-privileges",
        ],
      },
      "Image": "sha256:1",
      "Labels": {
        "oz-worker-id": "w1",
      },
      "OpenStdin": false,
      "StopSignal": "SIGTERM",
      "Tty": false,
      "WorkingDir": "/workspace",
    }
  `)
})

test('strict leaves no capability, and what the operator names is passed on', () => {
  const block: DockerBlock = { security: 'strict', runtime: 'runsc', userns: 'host', dns: ['10.0.0.2'], pids_limit: 0 }
  const { HostConfig } = containerSpec(input(block))
  expect(HostConfig).toMatchObject({
    CapDrop: ['ALL'],
    CapAdd: [],
    Runtime: 'runsc',
    UsernsMode: 'host',
    Dns: ['10.0.0.2'],
  })
  expect(HostConfig?.PidsLimit).toBeUndefined()
})

test('a read-only root leaves the usual folders for what is passing', () => {
  const { HostConfig } = containerSpec(input({ read_only_root: true }))
  expect(HostConfig?.ReadonlyRootfs).toBe(true)
  expect(Object.keys(HostConfig?.Tmpfs ?? {})).toEqual(['/tmp', '/var/tmp', '/run'])
})

test('memory has no swap on top', () => {
  const { HostConfig } = containerSpec(input({}, { limits: { nanoCpus: 5e8, memoryBytes: 64e6 } }))
  expect(HostConfig).toMatchObject({ NanoCpus: 5e8, Memory: 64e6, MemorySwap: 64e6 })
})

test('folders of the operator are mounted so that a missing one is not made, where that can be said', () => {
  const { HostConfig } = containerSpec(
    input({ volumes: ['/srv/a:/a:ro', '/srv/b:/b', '/srv/c:/c:ro,z', 'cache:/cache'] }),
  )
  expect(HostConfig?.Binds).toEqual(['/srv/c:/c:ro,z', 'cache:/cache'])
  expect(HostConfig?.Mounts?.filter(({ Type }) => Type === 'bind')).toEqual([
    { Type: 'bind', Source: '/srv/a', Target: '/a', ReadOnly: true },
    { Type: 'bind', Source: '/srv/b', Target: '/b' },
  ])
})

test('sidecars are read-only unless they are the task’s own, and the socket to the control plane comes as a folder', () => {
  const sidecars = [
    { volume: 'oz-sidecar-1', path: '/tools', isWritable: false },
    { volume: 'oz-1-volume-100', path: '/data', isWritable: true },
  ]
  const volumes = { ...input().volumes, sidecars }
  const mounts = containerSpec(input({}, { volumes, relay: '/state/relay/1' })).HostConfig?.Mounts
  expect(mounts).toContainEqual(expect.objectContaining({ Source: 'oz-sidecar-1', Target: '/tools', ReadOnly: true }))
  expect(mounts?.find(({ Target }) => Target === '/data')?.ReadOnly).toBeUndefined()
  expect(mounts).toContainEqual({
    Type: 'bind',
    Source: '/state/relay/1',
    Target: '/run/openoz-server',
    ReadOnly: true,
  })
})

test('a shared volume that goes before the container is made comes back with its labels', () => {
  const labels = { 'oz-agent-1': { 'oz-bundle': '1' } }
  const mounts = containerSpec(input({}, { volumes: { ...input().volumes, labels } })).HostConfig?.Mounts
  expect(mounts?.find(({ Target }) => Target === '/agent')?.VolumeOptions).toEqual({
    NoCopy: true,
    Labels: { 'oz-bundle': '1' },
  })
})

test('a folder that the image declares gets a volume of ours, unless something is mounted there', () => {
  const Volumes = { '/data/': {}, '/workspace': {}, '/data': {}, '/cache': {} }
  expect(imageVolumePaths({ Volumes }, ['/workspace', '/cache'])).toEqual(['/data'])
  expect(imageVolumePaths({}, [])).toEqual([])
})

test.each([
  ['/var/run/docker.sock:/x', true],
  ['/var/run:/x', true],
  ['/:/host', true],
  ['/home/ada/engine:/x', true],
  ['/run/user/1000/podman.sock:/x', true],
  ['/run/containerd:/x', true],
  ['/run/docker/containerd:/x', true],
  ['/run/user/1000:/x', true],
  ['/var/run/:/x', true],
  ['/srv/docker:/x', false],
  ['/var/runner:/x', false],
])('whether %s gives a task the engine is noticed', (spec, isSocket) => {
  const options = readDockerOptions({ volumes: [spec] }, {})
  expect(mountsEngineSocket(options, '/home/ada/engine/docker.sock') !== undefined).toBe(isSocket)
})
