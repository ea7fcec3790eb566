import type { TaskAssignment } from '@openoz/protocol'
import { type BenchControlPlane, connectBenchWorker } from './control-plane.ts'

/** Runs whose agents have said hello; answers their tokens. */
export async function startLiveAgents(controlPlane: BenchControlPlane, agents: number): Promise<string[]> {
  const assignments: TaskAssignment[] = []
  const all = Promise.withResolvers<void>()
  await connectBenchWorker(controlPlane, 'bench', (assignment) => {
    if (assignments.push(assignment) === agents) all.resolve()
  })
  for (let i = 0; i < agents; i++) await controlPlane.post('/api/v1/agent/runs', { prompt: 'bench' })
  await all.promise
  const tokens = assignments.map((assignment) => assignment.execution_token ?? '')
  for (const token of tokens)
    await controlPlane.post(
      '/api/v1/agent-channel/hello',
      { protocol: 1, agent_version: 'bench', process_nonce: 'bench-process', host: 'bench', pid: 1 },
      token,
    )
  return tokens
}
