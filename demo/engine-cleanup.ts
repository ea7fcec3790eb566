import { findEngine, openEngine, removeInstallation } from '@openoz/worker'
import { pino } from 'pino'

/** The agent, which a worker leaves on its engine for its next tasks: this one has none. Never rejects: an engine that is gone has nothing either. */
export async function clearEngine(stateDir: string, env: NodeJS.ProcessEnv): Promise<void> {
  const log = pino({ level: 'silent' })
  try {
    await using engine = openEngine(findEngine(env), { env, log })
    await removeInstallation(engine, { stateDir, log })
  } catch (error) {
    console.error(
      `What the demo has on its engine could not be removed: ${error instanceof Error ? error.message : error}`,
    )
  }
}
