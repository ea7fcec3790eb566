export { describeWork } from './checkout/checkout-command.ts'
export {
  type CheckoutRequest,
  type CheckoutResult,
  checkoutRun,
  findClone,
} from './checkout/checkout-run.ts'
export { type Connection, openConnection } from './connection.ts'
export { createOutput, type Output, reportError } from './output.ts'
export {
  type LocalStack,
  type LocalStackOptions,
  type LocalWorkerOptions,
  startLocalStack,
} from './stack/local-stack.ts'
export { onStopSignals, type StopSignals } from './stop-signals.ts'
export { showSession } from './watch/watch-run.ts'
