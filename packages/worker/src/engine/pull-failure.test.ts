import { expect, test } from 'vitest'
import { parseImage } from './image-reference.ts'
import { isTransientPullFailure, pullFailure } from './pull-failure.ts'
import { PullProgressSum, progressGapMs } from './pull-progress.ts'

const image = parseImage('ghcr.io/ada/tools:1')
const failure = (says: string, hadLogin = false) =>
  pullFailure(says, { image, enginePlatform: 'linux/amd64', hadLogin })

/** As engines from 20.10 on have said it. */
test.each([
  ['Head "https://ghcr.io/v2/ada/tools/manifests/1": no basic auth credentials', 'image_login_required'],
  ['unauthorized: authentication required', 'image_login_required'],
  ['Head "https://ghcr.io/v2/x": denied', 'image_pull_failed'],
  ['denied: requested access to the resource is denied', 'image_login_required'],
  [
    "pull access denied for ada/tools, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
    'image_login_required',
  ],
  ['Get "https://registry-1.docker.io/v2/": unauthorized: incorrect username or password', 'image_login_required'],
  ['manifest for ghcr.io/ada/tools:1 not found: manifest unknown: manifest unknown', 'image_not_found'],
  ['name unknown: repository name not known to registry', 'image_not_found'],
  ['Get "https://ghcr.io/v2/": dial tcp 127.0.0.1:5999: connect: connection refused', 'image_registry_unreachable'],
  ['Get "https://nope/v2/": dial tcp: lookup nope on 10.0.0.1:53: no such host', 'image_registry_unreachable'],
  ['net/http: TLS handshake timeout', 'image_registry_unreachable'],
  ['received unexpected HTTP status: 500 Internal Server Error', 'image_registry_unreachable'],
  ['toomanyrequests: You have reached your pull rate limit.', 'image_registry_unreachable'],
  ['http: server gave HTTP response to HTTPS client', 'image_registry_unreachable'],
  ['Get "https://ghcr.io/v2/": x509: certificate signed by unknown authority', 'image_registry_unreachable'],
  ['unexpected EOF', 'image_registry_unreachable'],
  ['filesystem layer verification failed for digest sha256:1234', 'image_corrupt'],
  ['failed to register layer: exit status 1: archive/tar: invalid tar header', 'image_corrupt'],
  ['write /var/lib/docker/tmp/GetImageBlob1: no space left on device', 'image_disk_full'],
  ['no matching manifest for linux/amd64 in the manifest list entries', 'image_wrong_platform'],
  ['the moon is in the wrong phase', 'image_pull_failed'],
])('%j means %s', (says, code) => {
  expect(failure(says).code).toBe(code)
})

test('a message names image and registry, and whether there was a login', () => {
  expect(failure('unauthorized: authentication required').message).toMatch(
    /registry ghcr\.io does not give the image ghcr\.io\/ada\/tools:1 without a login: unauthorized.*`docker login ghcr\.io`/,
  )
  expect(failure('unauthorized', true).message).toContain('with the login that this worker has')
})

test('logins and signatures in addresses are not repeated', () => {
  const says = 'Get "https://ada:hunter2@cdn.example/blob?X-Signature=abc123&e=1": dial tcp: connection refused'
  const { message, details } = failure(says)
  expect(message).toContain('https://cdn.example/blob"')
  expect(JSON.stringify([message, details])).not.toMatch(/hunter2|abc123/)
})

test('only what waiting may cure is tried again', () => {
  const isTried = (says: string) => isTransientPullFailure(failure(says))
  expect(isTried('dial tcp 127.0.0.1:5999: connect: connection refused')).toBe(true)
  expect(isTried('received unexpected HTTP status: 503 Service Unavailable')).toBe(true)
  expect(isTried('x509: certificate signed by unknown authority')).toBe(false)
  expect(isTried('manifest unknown')).toBe(false)
  expect(isTried('no space left on device')).toBe(false)
})

test('progress adds up the layers, and knows the total once it knows all of them', () => {
  const sum = new PullProgressSum()
  expect(sum.now()).toEqual({ text: 'asking the registry', current: 0 })
  sum.take({ status: 'Pulling from ada/tools', id: '1' })
  sum.take({ status: 'Already exists', id: 'old' })
  for (const id of ['a', 'b']) sum.take({ status: 'Pulling fs layer', progressDetail: {}, id })
  sum.take({ status: 'Downloading', progressDetail: { current: 10, total: 100 }, id: 'a' })
  expect(sum.now()).toEqual({ text: 'downloading, 0 of 2 layers are here', current: 10 })
  sum.take({ status: 'Downloading', progressDetail: { current: 5, total: 50 }, id: 'b' })
  sum.take({ status: 'Verifying Checksum', progressDetail: {}, id: 'a' })
  expect(sum.now()).toEqual({ text: 'downloading, 1 of 2 layers are here', current: 105, total: 150 })
  sum.take({ status: 'Download complete', progressDetail: {}, id: 'b' })
  sum.take({ status: 'Extracting', progressDetail: { current: 1, total: 100 }, id: 'a' })
  sum.take({ status: 'Pull complete', progressDetail: {}, id: 'a' })
  expect(sum.now()).toEqual({ text: 'unpacking, 1 of 2 layers are done', current: 150, total: 150 })
})

test('a long pull is told of less and less often', () => {
  expect([0, 9, 10, 25, 1_000].map(progressGapMs)).toEqual([2_000, 2_000, 4_000, 8_000, 32_000])
})
