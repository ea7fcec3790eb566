import { isTerminal, runStates } from '@openoz/protocol'
import type { PrometheusExporter } from '@opentelemetry/exporter-prometheus'
import type { MeterProviderOptions } from '@opentelemetry/sdk-metrics'
import type { ModelGateway } from '../model-gateway.ts'
import type { Database } from '../store/database.ts'
import { countRunsByState } from '../store/runs.ts'

/** Numbers of this server; counts of runs come from the database, so every replica tells the same. */
export interface ServerMetrics {
  /** Prometheus text. */
  render(): Promise<string>
  shutdown(): Promise<void>
}

interface MetricSources {
  version: string
  gateway: Pick<ModelGateway, 'counts' | 'usageWaiting'>
  /** Absent in a process that is the gateway alone. */
  controlPlane?: { db: Database; workerConnections: () => number }
}

/** Loaded after the server is ready: nobody scrapes before, and the start is quicker without it. */
export async function createServerMetrics({ version, gateway, controlPlane }: MetricSources): Promise<ServerMetrics> {
  const { PrometheusExporter, PrometheusSerializer } = await import('@opentelemetry/exporter-prometheus')
  const { MeterProvider } = await import('@opentelemetry/sdk-metrics')
  const exporter: PrometheusExporter = new PrometheusExporter({ preventServerStart: true })
  const provider = new MeterProvider({ readers: [exporter], resource: resourceOf(version) })
  const meter = provider.getMeter('openoz')

  meter
    .createObservableGauge('oz_server_info', { description: 'Always 1; the version is a label.' })
    .addCallback((result) => result.observe(1, { version }))
  meter
    .createObservableGauge('oz_server_resident_memory_bytes', { description: 'Resident memory of this process.' })
    .addCallback((result) => result.observe(process.memoryUsage.rss()))
  meter
    .createObservableCounter('oz_gateway_calls', { description: 'Calls of models through this process, by their end.' })
    .addCallback((result) => {
      for (const [end, count] of Object.entries(gateway.counts)) result.observe(count, { end })
    })
  meter
    .createObservableGauge('oz_gateway_usage_waiting', { description: 'Calls whose usage is not written yet.' })
    .addCallback((result) => result.observe(gateway.usageWaiting()))
  if (controlPlane) {
    meter
      .createObservableGauge('oz_server_worker_connections', {
        description: 'Open worker sockets of this server, plain HTTP channels among them.',
      })
      .addCallback((result) => result.observe(controlPlane.workerConnections()))
    meter
      .createObservableGauge('oz_runs', { description: 'Runs by state, over the whole installation.' })
      .addCallback(async (result) => {
        // Every state each time: the exporter keeps the last value of one that is not observed any more.
        const counts = new Map((await countRunsByState(controlPlane.db)).map(({ state, count }) => [state, count]))
        for (const state of runStates) if (!isTerminal(state)) result.observe(counts.get(state) ?? 0, { state })
      })
  }

  const serializer = new PrometheusSerializer()
  return {
    async render() {
      const { resourceMetrics } = await exporter.collect()
      return serializer.serialize(resourceMetrics)
    },
    shutdown: () => provider.shutdown(),
  }
}

/** A resource is plain data here; the package that makes them from the environment has detectors that nobody needs. */
function resourceOf(version: string): NonNullable<MeterProviderOptions['resource']> {
  const attributes = { 'service.name': 'openoz', 'service.version': version }
  const resource: ReturnType<typeof resourceOf> = {
    attributes,
    merge: () => resource,
    getRawAttributes: () => Object.entries(attributes),
  }
  return resource
}
