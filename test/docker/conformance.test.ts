import type { BackendName } from '../../packages/worker/src/backends/backend.ts'
import { availableBackendNames } from '../../packages/worker/src/backends/backend.ts'
import type { BackendFixture } from '../conformance/backend-fixture.ts'
import { describeBackend } from '../conformance/describe-backend.ts'
import { directFixture } from '../conformance/direct-fixture.ts'
import { dockerFixture } from '../conformance/docker-fixture.ts'

const fixtures: Record<BackendName, BackendFixture> = { direct: directFixture, docker: dockerFixture }

for (const name of availableBackendNames) describeBackend(fixtures[name])
