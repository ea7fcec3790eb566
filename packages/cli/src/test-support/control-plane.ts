import { afterAll, beforeAll, expect } from 'vitest'
import { makeTestHome, type RunningProgram, startOz, type TestHome } from './run-program.ts'

/**
 * One control plane without a worker for all tests of a file, in a home of its own: every run waits. Like the home itself it is there from the first
 * test to the last one.
 */
export function useControlPlane(): Pick<TestHome, 'folder' | 'env'> & { readonly server: RunningProgram } {
  let home: TestHome
  let server: RunningProgram

  beforeAll(async () => {
    home = await makeTestHome()
    server = startOz(['up', '--no-worker', '--listen', '127.0.0.1:0', '--output-format', 'ndjson'], home.env)
    await server.line(/server_ready/)
  })

  afterAll(async () => {
    server.child.kill('SIGTERM')
    expect((await server.ended).exitCode).toBe(0)
    await home[Symbol.asyncDispose]()
  })

  return {
    get folder() {
      return home.folder
    },
    get env() {
      return home.env
    },
    get server() {
      return server
    },
  }
}
