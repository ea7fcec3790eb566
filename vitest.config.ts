import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['packages/*/src/**/*.test.ts', 'test/**/*.test.ts', 'demo/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Real processes and one real PostgreSQL per run: more files at once than cores only makes them wait for each other.
    maxWorkers: 2,
    pool: 'forks',
  },
})
