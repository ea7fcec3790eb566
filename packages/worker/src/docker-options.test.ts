import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { dockerBlock, readDockerOptions } from './docker-options.ts'

test('without a word a task has a network and limits of its own, and what package managers need', () => {
  expect(readDockerOptions({}, {})).toMatchObject({
    volumes: [],
    network: 'isolated',
    networkPool: '10.213.0.0/16',
    security: 'default',
    readOnlyRoot: false,
    pidsLimit: 4096,
    dns: [],
  })
})

test('every key of the file has its option, and volumes of the command line come behind those of the file', () => {
  const block = dockerBlock.parse(
    parse(`
volumes: ["/srv/cache:/cache:ro"]
environment: [{ name: CI, value: "true" }]
image_pull_policy: Never
sidecar_image: registry.example.com/agent:2
default_image: debian:12
network: build-net
network_pool: 10.99.0.0/20
security: strict
read_only_root: true
runtime: runsc
userns: host
pids_limit: 0
dns: [10.0.0.2, "2001:db8::1"]
allowed_host_paths: []
state_dir: /srv/oz
bundle: /opt/agent`),
  )
  expect(readDockerOptions(block, { volumes: ['build:/build'] })).toEqual({
    volumes: [
      { spec: '/srv/cache:/cache:ro', source: '/srv/cache', isPath: true, target: '/cache', mode: 'ro' },
      { spec: 'build:/build', source: 'build', isPath: false, target: '/build' },
    ],
    imagePullPolicy: 'Never',
    sidecarImage: 'registry.example.com/agent:2',
    defaultImage: 'debian:12',
    network: 'build-net',
    networkPool: '10.99.0.0/20',
    security: 'strict',
    readOnlyRoot: true,
    runtime: 'runsc',
    userns: 'host',
    pidsLimit: 0,
    dns: ['10.0.0.2', '2001:db8::1'],
    allowedHostPaths: [],
    stateDir: '/srv/oz',
    bundle: '/opt/agent',
  })
})

test('user namespaces that are said to be the engine’s are left to it', () => {
  expect(readDockerOptions({ userns: '' }, {}).userns).toBeUndefined()
})
