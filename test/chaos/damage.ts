import type { Evidence, ExecutionRow, LedgerEntry } from '../../packages/cli/src/chaos/evidence.ts'
import type { CheckName } from '../../packages/cli/src/chaos/verify.ts'

/** What must not be, planted into the evidence of a round in which nothing was wrong; each is for one check to find, and for no other. */
export interface Damage {
  name: string
  check: CheckName
  plant: (evidence: Evidence) => void
}

export const damages: Damage[] = [
  {
    name: 'a run that was accepted is not there',
    check: 'lost',
    plant(evidence) {
      const entry = first(evidence.accepted, ({ kind }) => kind === 'create')
      evidence.accepted.push({ ...entry, run: 99, runId: nobody } as Evidence['accepted'][number])
    },
  },
  {
    name: 'a message that was accepted is not there',
    check: 'lost',
    plant(evidence) {
      const { run, runId } = first(evidence.accepted, ({ kind }) => kind === 'create')
      evidence.accepted.push({ kind: 'note', run, runId, text: 'chaos', messageId: nobody })
    },
  },
  {
    name: 'a request was refused',
    check: 'lost',
    plant: ({ refused }) => void refused.push({ run: 0, what: 'create', problem: 'prompt_empty: …' }),
  },
  {
    name: 'an execution is live',
    check: 'stuck',
    plant: ({ executions }) => Object.assign(first(executions), { state: 'running' }),
  },
  {
    name: 'a turn has no outcome, and its run is at work',
    check: 'stuck',
    plant(evidence) {
      const turn = lastTurn(evidence)
      turn.outcome = null
      first(evidence.runs, ({ id }) => id === turn.run_id).state = 'INPROGRESS'
      const rest = evidence.events.findLast(({ run_id, state }) => run_id === turn.run_id && state === 'SUCCEEDED')
      Object.assign(rest ?? {}, { state: 'INPROGRESS' })
    },
  },
  {
    name: 'a turn has two outcomes',
    check: 'outcome',
    plant({ events }) {
      Object.assign(
        first(events, ({ type, state }) => type === 'run_state' && state === 'INPROGRESS'),
        { state: 'SUCCEEDED' },
      )
    },
  },
  {
    name: 'a turn that nobody cancelled is cancelled',
    check: 'outcome',
    plant: (evidence) => Object.assign(lastTurn(evidence), { outcome: 'CANCELLED' }),
  },
  {
    name: 'a turn ended as ERROR although it would have been tried again',
    check: 'outcome',
    plant: (evidence) => Object.assign(lastTurn(evidence), { outcome: 'ERROR' }),
  },
  {
    name: 'a turn was asked twice',
    check: 'said',
    plant({ turns, accepted }) {
      const { runId } = first(accepted, ({ run }) => run === 0)
      const [one, two] = turns.filter(({ run_id }) => run_id === runId)
      if (one && two) two.message = one.message
    },
  },
  {
    name: 'a prompt was shown to the model twice',
    check: 'said',
    plant: ({ model }) => Object.assign(first(model), { count: 2 }),
  },
  {
    name: 'a prompt never reached the model',
    check: 'said',
    plant(evidence) {
      const { run, id } = first(evidence.model, (seen) => seen.id === 't0')
      evidence.model = evidence.model.filter((seen) => seen.run !== run || seen.id !== id)
    },
  },
  {
    name: 'an execution said hello before the one before it had ended',
    check: 'double',
    plant(evidence) {
      const [earlier, later] = twoExecutions(evidence)
      later.hello_at = (earlier.ended_at ?? 0) - 0.5
    },
  },
  {
    name: 'the fence is not the newest execution’s',
    check: 'fence',
    plant: ({ runs }) => Object.assign(first(runs), { fence: 9 }),
  },
  {
    name: 'a tool of an execution works on after a later one has begun to',
    check: 'effects',
    plant(evidence) {
      const [earlier] = twoExecutions(evidence)
      const last = evidence.ledger.findLast(({ executionId }) => executionId === earlier.id)
      evidence.ledger.push({ ...(last as LedgerEntry), what: 'beat' })
    },
  },
  {
    name: 'a tool works on after its execution has ended',
    check: 'effects',
    plant(evidence) {
      const entry = lastEntry(evidence)
      const execution = first(evidence.executions, ({ id }) => id === entry.executionId)
      evidence.ledger.push({ ...entry, what: 'beat', at: (execution.ended_at ?? 0) + 5 })
    },
  },
  {
    name: 'one call was performed twice',
    check: 'steps',
    plant: (evidence) =>
      void evidence.ledger.push({ ...lastEntry(evidence), what: 'begin', files: madeFiles(evidence) }),
  },
  {
    name: 'a turn succeeded without having done its work',
    check: 'steps',
    plant(evidence) {
      const { run, turn, step } = first(evidence.ledger, ({ what, kind }) => what === 'done' && kind !== 'write')
      evidence.ledger = evidence.ledger.filter(
        (entry) => entry.run !== run || entry.turn !== turn || entry.step !== step || entry.what !== 'done',
      )
    },
  },
  {
    name: 'a file that an earlier step made is gone',
    check: 'workspace',
    plant: ({ ledger }) => void first(ledger, ({ files }) => files.length > 0).files.pop(),
  },
  {
    name: 'an event is missing in the log',
    check: 'holes',
    plant(evidence) {
      const { run_id: runId } = first(evidence.events)
      evidence.events = evidence.events.filter(({ run_id, seq }) => run_id !== runId || seq !== 5)
      // As it would have been from the start: nobody saw it.
      for (const view of evidence.views) if (view.runId === runId) view.seen = []
      evidence.views = evidence.views.filter((view) => view.runId !== runId)
    },
  },
  {
    name: 'the last event is missing in the log',
    check: 'holes',
    plant(evidence) {
      const log = first(evidence.logs)
      log.last_seq++
      evidence.views = evidence.views.filter(({ runId }) => runId !== log.run_id)
    },
  },
  {
    name: 'an event of an agent was taken twice',
    check: 'holes',
    plant({ events }) {
      const [one, two] = events.filter(({ n, execution_id }) => n !== null && execution_id === firstAgent(events))
      if (one && two) two.n = one.n
    },
  },
  {
    name: 'an event was taken that was not acknowledged',
    check: 'holes',
    plant({ executions, events }) {
      first(executions, ({ id }) => id === firstAgent(events)).acked_n = 1
    },
  },
  {
    name: 'a viewer saw an event twice',
    check: 'viewers',
    plant({ views }) {
      const { seen } = first(views)
      const again = seen[3]
      if (again) seen.splice(4, 0, again)
    },
  },
  {
    name: 'a viewer missed an event',
    check: 'viewers',
    plant: ({ views }) => void first(views).seen.splice(4, 1),
  },
  {
    name: 'a viewer saw another event than the stored one',
    check: 'viewers',
    plant({ views }) {
      const { seen } = first(views)
      seen[4] = [5, 'another']
    },
  },
  {
    name: 'a viewer did not see the end',
    check: 'viewers',
    plant: ({ views }) => void first(views).seen.pop(),
  },
  {
    name: 'an execution went on from an older checkpoint than the newest',
    check: 'checkpoints',
    plant(evidence) {
      const [, later] = twoExecutions(evidence)
      const mine = evidence.checkpoints.filter(({ execution_id }) => execution_id === later.id)
      for (const checkpoint of mine) checkpoint.step = 0
    },
  },
  {
    name: 'an execution that was over wrote a checkpoint',
    check: 'checkpoints',
    plant(evidence) {
      const [earlier] = twoExecutions(evidence)
      const last = evidence.checkpoints.findLast(({ run_id }) => run_id === earlier.run_id)
      if (last) evidence.checkpoints.push({ ...last, execution_id: earlier.id })
    },
  },
  {
    name: 'a process is left',
    check: 'left_over',
    plant: ({ leftOver }) => void leftOver.push({ what: 'process', name: '4711: sleep 600' }),
  },
  {
    name: 'a container is left',
    check: 'left_over',
    plant: ({ leftOver }) => void leftOver.push({ what: 'container', name: 'oz-task-0198' }),
  },
  {
    name: 'a volume is left',
    check: 'left_over',
    plant: ({ leftOver }) => void leftOver.push({ what: 'volume', name: 'oz-0198-workspace' }),
  },
  {
    name: 'a file is left',
    check: 'left_over',
    plant: ({ leftOver }) => void leftOver.push({ what: 'file', name: 'tasks/0198' }),
  },
  {
    name: 'saved work of an execution that was not lost',
    check: 'left_over',
    plant: ({ leftOver, executions }) =>
      void leftOver.push({ what: 'file', name: `state/saved-workspaces/${executions[0]?.id}` }),
  },
  {
    name: 'a row is left',
    check: 'left_over',
    plant: ({ leftOver }) => void leftOver.push({ what: 'row', name: '1 × a connection of a worker' }),
  },
  {
    name: 'a program had to be killed',
    check: 'left_over',
    plant: ({ impolite }) => void impolite.push('server-0'),
  },
  {
    name: 'a program ended by itself',
    check: 'crashed',
    plant: ({ crashes }) => void crashes.push({ name: 'worker-0', code: 1, signal: null }),
  },
]

const nobody = '00000000-0000-7000-8000-000000000000'

function first<T>(items: readonly T[], isIt: (item: T) => boolean = () => true): T {
  const found = items.find(isIt)
  if (found === undefined) throw new Error('the round has nothing to damage in this way')
  return found
}

function lastTurn({ turns, runs, accepted }: Evidence) {
  const isCancelled = new Set(accepted.flatMap(({ kind, runId }) => (kind === 'cancel' ? [runId] : [])))
  const run = first(runs, ({ id, state }) => state === 'SUCCEEDED' && !isCancelled.has(id))
  const turn = turns.findLast(({ run_id }) => run_id === run.id)
  return first(turns, (one) => one === turn)
}

function lastEntry({ ledger }: Evidence): LedgerEntry {
  const run = ledger.at(-1)?.run
  return first(ledger.toReversed(), (entry) => entry.run === run && entry.what === 'done')
}

function madeFiles({ ledger }: Evidence): string[] {
  return ledger
    .filter(({ kind, what }) => kind === 'write' && what === 'done')
    .map(({ turn, step }) => `chaos-${turn}-${step}`)
}

/** Two of one run that have both done something, in their order. */
function twoExecutions({ executions, ledger, checkpoints }: Evidence): [ExecutionRow, ExecutionRow] {
  const acted = new Set(ledger.map(({ executionId }) => executionId))
  const kept = new Set(checkpoints.map(({ execution_id }) => execution_id))
  const isBusy = ({ id }: ExecutionRow) => acted.has(id) && kept.has(id)
  // An offer that was rejected is an execution too, one that has done nothing.
  const busy = executions.filter(isBusy)
  const earlier = first(busy, ({ run_id, id }) => busy.some((row) => row.run_id === run_id && row.id !== id))
  return [earlier, first(busy, ({ run_id, id }) => run_id === earlier.run_id && id !== earlier.id)]
}

function firstAgent(events: Evidence['events']): string | null {
  return first(events, ({ n }) => n === 2).execution_id
}
