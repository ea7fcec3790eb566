import type { RequestListener } from 'node:http'
import type { Logger } from 'pino'
import type { ServerOptions } from './config.ts'
import type { Hints } from './domain/context.ts'
import { createModelCatalog, type ModelCatalog } from './llm/catalog.ts'
import { createProviderConnections } from './llm/connections.ts'
import { createGateway, type Gateway } from './llm/gateway.ts'
import { createModelCallers } from './llm/model-callers.ts'
import { createPrices } from './llm/prices.ts'
import { findProviders } from './llm/providers.ts'
import { addNamedProviders } from './llm/providers-file.ts'
import { createUsageLog } from './llm/usage-log.ts'
import type { Database } from './store/database.ts'

/** How long the usage of the last calls may take to be written when the process stops. */
const flushMs = 5_000

/** Models and the way to them: the same in the control plane and in a gateway of its own. */
export interface ModelGateway {
  catalog: ModelCatalog
  handle: RequestListener
  counts: Gateway['counts']
  usageWaiting(): number
  /** Writes what is left to write. After the last call has ended, before the database is closed. */
  close(): Promise<void>
}

interface ModelGatewayDeps {
  db: Database
  hints: Pick<Hints, 'publish'>
  log: Logger
}

/** Throws `option_invalid` for a provider or a file that cannot be used. */
export function createModelGateway(options: ServerOptions, { db, hints, log }: ModelGatewayDeps): ModelGateway {
  const providers = addNamedProviders(findProviders(options.env), options.providersFile, options.env)
  const prices = createPrices(options.pricesFile)
  const connections = createProviderConnections(options.env)
  const { defaultModel, gatewayUrl } = options
  const catalog = createModelCatalog(providers, { connections, log, clock: performance, defaultModel, gatewayUrl })
  const usageLog = createUsageLog({ db, publish: hints.publish, log })
  const gateway = createGateway({ connections, catalog, callers: createModelCallers(db), prices, usageLog, log })
  return {
    catalog,
    handle: gateway.handle,
    counts: gateway.counts,
    usageWaiting: usageLog.waiting,
    async close() {
      connections.close()
      await usageLog.close(flushMs)
    },
  }
}
