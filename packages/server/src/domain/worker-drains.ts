import { AppError, type DrainWorkerResponse } from '@openoz/protocol'
import { insertAuditEvent } from '../store/audit-events.ts'
import { countLiveExecutionsOf, deleteWorkerDrain, insertWorkerDrain } from '../store/worker-drains.ts'
import { listWorkerConnections, type WorkerDrain } from '../store/workers.ts'
import { type Actor, actorLabel, actorName } from './actors.ts'
import { type Ctx, change } from './context.ts'
import { storableText } from './session-log.ts'

/**
 * Worker ids that an operator takes out of service. The wish is the id's, not a connection's: it holds for whoever connects under it, until an operator
 * ends it. What runs goes on; the claim itself asks for it, so nothing is offered any more but by claims that were under way at the answer.
 */

export async function drainWorker(ctx: Ctx, workerId: string, actor: Actor): Promise<DrainWorkerResponse> {
  const target = { teamId: actor.teamId, workerId: requireWorkerId(workerId) }
  const drain = await change(ctx, async (tx, hint) => {
    const drain = await insertWorkerDrain(tx, { ...target, requestedBy: storableText(actorName(actor)) })
    hint('worker-drains')
    if (drain.isNew) await insertAuditEvent(tx, audit(actor, 'worker.drain', workerId))
    return drain
  })
  return describe(ctx, target, drain)
}

/** Asked for twice it changes nothing, and answers the same. */
export async function endWorkerDrain(ctx: Ctx, workerId: string, actor: Actor): Promise<DrainWorkerResponse> {
  const target = { teamId: actor.teamId, workerId: requireWorkerId(workerId) }
  await change(ctx, async (tx, hint) => {
    if (!(await deleteWorkerDrain(tx, target))) return
    hint('worker-drains')
    await insertAuditEvent(tx, audit(actor, 'worker.undrain', workerId))
  })
  return describe(ctx, target, null)
}

async function describe(
  ctx: Ctx,
  target: { teamId: string; workerId: string },
  drain: WorkerDrain | null,
): Promise<DrainWorkerResponse> {
  const { teamId, workerId } = target
  const connections = (await listWorkerConnections(ctx.db, teamId)).filter((worker) => worker.workerId === workerId)
  return {
    worker_id: workerId,
    drain: drain && toDrainItem(drain),
    connections: connections.length,
    active: await countLiveExecutionsOf(ctx.db, target),
  }
}

export function toDrainItem({ requestedAt, requestedBy }: WorkerDrain): { requested_at: string; requested_by: string } {
  return { requested_at: requestedAt.toISOString(), requested_by: requestedBy }
}

function audit(actor: Actor, action: string, workerId: string) {
  return { teamId: actor.teamId, actor: actorLabel(actor), action, target: `worker:${workerId}` }
}

/** No worker has another one; the database could not even store some of them. */
export function requireWorkerId(workerId: string): string {
  if (workerId === '' || workerId.length > 255 || workerId.startsWith('warp') || /\p{Cc}/u.test(workerId))
    throw new AppError('worker_id_reserved', { workerId: workerId.slice(0, 255) })
  return workerId
}
