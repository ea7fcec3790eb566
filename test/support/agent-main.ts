import { readAgentEnvironment, runAgent } from '@openoz/agent'
import { pino } from 'pino'

/** The agent as a process of its own, without the command line: for tests that kill it or look at it from outside. */
const { executionToken, serverUrl = '', spoolDir } = await readAgentEnvironment(process.env)
const stop = new AbortController()
process.once('SIGTERM', () => stop.abort())
const { exitCode } = await runAgent({
  serverUrl,
  executionToken,
  spoolDir,
  workingDirectory: process.cwd(),
  log: pino({ level: process.env.OZ_TEST_LOG ?? 'silent' }, pino.destination(2)),
  signal: stop.signal,
  env: process.env,
})
process.exitCode = exitCode
