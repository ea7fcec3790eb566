import { defineConfig } from 'vitest/config'

/** Tests of a whole control plane: they share one PostgreSQL per run, and each gets a database of its own. */
const wholeControlPlane = ['test/*.test.ts']

/** What speaks SQL most: enough to know that the oldest PostgreSQL we take answers the same. */
const onOldestPostgres = [
  'run-lifecycle',
  'event-batches',
  'claims',
  'leases',
  'idempotency',
  'run-lists',
  'agent-events',
  'backup',
  'restored-runs',
]

export default defineConfig({
  test: {
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Real processes and one real PostgreSQL per run: more files at once than cores only makes them wait for each other.
    maxWorkers: 2,
    pool: 'forks',
    projects: [
      {
        extends: true,
        test: {
          name: 'parts',
          include: ['packages/*/src/**/*.test.ts', 'test/completeness/**/*.test.ts', 'demo/**/*.test.ts'],
        },
      },
      {
        extends: true,
        test: {
          name: 'control plane',
          include: wholeControlPlane,
          globalSetup: ['test/support/postgres-embedded.ts'],
          setupFiles: ['test/support/leak-check.ts'],
        },
      },
      {
        extends: true,
        test: {
          name: 'control plane on Debian’s PostgreSQL',
          include: onOldestPostgres.map((name) => `test/${name}.test.ts`),
          globalSetup: ['test/support/postgres-debian.ts'],
          setupFiles: ['test/support/leak-check.ts'],
        },
      },
      {
        extends: true,
        test: {
          name: 'docker',
          include: ['test/docker/*.test.ts'],
          globalSetup: [
            'test/support/shared-docker-engine.ts',
            'test/support/built-bundle.ts',
            'test/support/postgres-embedded.ts',
          ],
          setupFiles: ['test/support/docker-required.ts', 'test/support/leak-check.ts'],
          // After those that wait for nothing but themselves: an engine starts dozens of processes per container.
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          name: 'chaos',
          include: ['test/chaos/*.test.ts'],
          // After all others, one file at a time: whole rounds need both cores, and others' files would pay for that.
          sequence: { groupOrder: 2 },
          maxWorkers: 1,
        },
      },
    ],
  },
})
