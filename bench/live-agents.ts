import type { HelloResponse, TaskAssignment } from '@openoz/protocol'
import { type BenchWorker, connectBenchWorker } from './bench-worker.ts'
import type { BenchControlPlane } from './control-plane.ts'
import { inLanes } from './load.ts'

export interface LiveAgent {
  token: string
  runId: string
  executionId: string
  turnId: string
}

/** Runs whose agents have said hello, all on one worker, which is full then. */
export async function startLiveAgents(controlPlane: BenchControlPlane, count: number): Promise<LiveAgent[]> {
  const assignments: TaskAssignment[] = []
  const all = Promise.withResolvers<void>()
  await connectBenchWorker(controlPlane, {
    workerId: 'bench',
    maxConcurrentTasks: count,
    onAssignment: (assignment) => {
      if (assignments.push(assignment) === count) all.resolve()
    },
  })
  await inLanes(8, count, () => controlPlane.post('/api/v1/agent/runs', { prompt: 'bench' }))
  await all.promise
  const agents: LiveAgent[] = []
  await inLanes(8, count, async (i) => {
    const assignment = assignments[i]
    if (assignment) agents.push(await sayHello(controlPlane, assignment))
  })
  return agents
}

export async function sayHello(controlPlane: BenchControlPlane, assignment: TaskAssignment): Promise<LiveAgent> {
  const token = assignment.execution_token ?? ''
  const about = { protocol: 1, agent_version: 'bench', process_nonce: 'bench-process', host: 'bench', pid: 1 }
  const { turn } = await controlPlane.post<HelloResponse>('/api/v1/agent-channel/hello', about, token)
  return { token, runId: assignment.task_id, executionId: assignment.execution_id, turnId: turn.turn_id }
}

/** What a model says in a word or two, as it is streamed. */
export const chunk = { messageId: 'bench', content: { type: 'text', text: 'x'.repeat(120) } }

/** Sends the next `size` events of an agent's stream; resolves when they are durable. */
export function createEventWriter(controlPlane: BenchControlPlane, { token }: LiveAgent) {
  let sent = 0
  const send = (events: { type: string; data: object }[]) => {
    const at = new Date().toISOString()
    const numbered = events.map((event) => ({ n: ++sent, at, ...event }))
    return controlPlane.post('/api/v1/agent-channel/events', { events: numbered }, token)
  }
  return {
    say: (size: number) => send(Array.from({ length: size }, () => ({ type: 'agent_message_chunk', data: chunk }))),
    send,
  }
}

const patienceMs = 60_000

/**
 * Whole lives of runs without a process: create, offer, claim, start, hello, one batch of five events with the outcome, and the worker's word
 * that the agent has ended. Any number at a time, over a few workers that have no limit.
 */
export async function startLifecycles(controlPlane: BenchControlPlane, workers = 4) {
  const arrived = new Map<string, PromiseWithResolvers<{ assignment: TaskAssignment; worker: BenchWorker }>>()
  // The assignment may overtake the answer that tells the run's id.
  const arrival = (runId: string) => {
    const entry = arrived.get(runId) ?? Promise.withResolvers()
    arrived.set(runId, entry)
    return entry
  }
  const connected: BenchWorker[] = []
  for (let i = 0; i < workers; i++) {
    const worker: BenchWorker = await connectBenchWorker(controlPlane, {
      workerId: `lives-${i}`,
      onAssignment: (assignment) => arrival(assignment.task_id).resolve({ assignment, worker }),
    })
    connected.push(worker)
  }

  return {
    /** Resolves when the last batch is durable and the worker has reported. */
    async live(): Promise<string> {
      const { run_id } = await controlPlane.post<{ run_id: string }>('/api/v1/agent/runs', { prompt: 'bench' })
      const tooLate = setTimeout(
        () => arrival(run_id).reject(new Error(`run ${run_id} was not offered within ${patienceMs / 1000} s`)),
        patienceMs,
      )
      const { assignment, worker } = await arrival(run_id).promise
      clearTimeout(tooLate)
      arrived.delete(run_id)
      worker.started(assignment)
      const agent = await sayHello(controlPlane, assignment)
      await createEventWriter(controlPlane, agent).send([
        ...Array.from({ length: 4 }, () => ({ type: 'agent_message_chunk', data: chunk })),
        { type: 'turn_outcome', data: { turn_id: agent.turnId, outcome: 'SUCCEEDED', message: 'Done.' } },
      ])
      worker.complete(assignment)
      return run_id
    },
    close() {
      for (const worker of connected) worker.close()
    },
  }
}
