/**
 * The times of a round, as variables for its servers: all of them short, so that a lost execution is seen within a round, and far enough apart
 * that a busy machine alone loses nothing.
 */
export const leaseVariables: Record<string, string> = {
  OZ_LEASE_UNREACHABLE: '3s',
  OZ_LEASE_STOP: '10s',
  OZ_LEASE_LOST: '15s',
  OZ_LEASE_SETTLED: '8s',
  OZ_LEASE_CONFIRM: '4s',
  OZ_LEASE_OUTAGE: '4s',
  OZ_LEASE_OFFER: '8s',
  OZ_LEASE_LATE: '2m',
  OZ_START_TIMEOUT: '60s',
  OZ_CANCEL_GRACE: '4s',
  OZ_LLM_RETRY_FOR: '2m',
}

/** Until what a lost execution left behind has to have ended: its lease, the confirmation, and some of the machine's own slowness. */
export const lostToGoneMs = 30_000

/** Between the end of an execution in the database and its last sign of life: the two are told by different programs. */
export const endToGoneMs = 3_000
