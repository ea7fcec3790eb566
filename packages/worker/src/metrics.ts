import type { RequestListener, Server } from 'node:http'
import { AppError, failureReasons, type ReportedFailureReason } from '@openoz/protocol'
import type { Meter } from '@opentelemetry/api'
import type { IMetricReader, MeterProvider, MeterProviderOptions } from '@opentelemetry/sdk-metrics'
import type { Logger } from 'pino'
import type { TaskOutcome } from './task-outcome.ts'

/**
 * What a worker counts; the names are those of the reference, so its dashboards and alerts work.
 *
 * The reference sends to an OTLP collector on this machine when nothing is said. We send and open nothing that nobody asked for: without
 * OTEL_METRICS_EXPORTER and any OTEL_EXPORTER_… variable there are no metrics, and OpenTelemetry is not even loaded.
 */
export interface WorkerMetrics {
  setConnected(isConnected: boolean): void
  setActive(count: number): void
  countClaimed(): void
  countRejectedAtCapacity(): void
  countEnded(result: Exclude<TaskOutcome['result'], 'abandoned' | 'left'>, seconds: number): void
  countFailure(phase: FailurePhase, reason: ReportedFailureReason): void
  countReconnect(reason: ReconnectReason): void
  /** Flushes, at most 5 s. Never rejects. */
  shutdown(): Promise<void>
}

const failurePhases = ['assignment', 'backend', 'cleanup'] as const
type FailurePhase = (typeof failurePhases)[number]
const reconnectReasons = ['dial_failed', 'remote_close'] as const
type ReconnectReason = (typeof reconnectReasons)[number]
const results = ['succeeded', 'failed', 'cancelled', 'dispatched'] as const

interface MetricsOptions {
  env: NodeJS.ProcessEnv
  workerId: string
  backend: string
  version: string
  maxConcurrentTasks: number
  log: Logger
}

const exporters = ['prometheus', 'otlp', 'console', 'none'] as const
type ExporterName = (typeof exporters)[number]

/** Throws `option_invalid` for an exporter or protocol that we do not have. */
export function chooseExporter(env: NodeJS.ProcessEnv): ExporterName {
  const isAskedFor = Object.keys(env).some((name) => name.startsWith('OTEL_EXPORTER_') && env[name])
  const name = env.OTEL_METRICS_EXPORTER || (isAskedFor ? 'otlp' : 'none')
  const known = exporters.find((exporter) => exporter === name)
  if (!known) {
    const problem = `${name} is none of ${exporters.join(', ')}`
    throw new AppError('option_invalid', { option: 'OTEL_METRICS_EXPORTER', problem })
  }
  const protocol = env.OTEL_EXPORTER_OTLP_METRICS_PROTOCOL || env.OTEL_EXPORTER_OTLP_PROTOCOL
  if (known === 'otlp' && protocol !== undefined && protocol.startsWith('grpc')) {
    throw new AppError('option_invalid', {
      option: 'OTEL_EXPORTER_OTLP_PROTOCOL',
      problem: 'grpc is not part of this version; use http/protobuf and port 4318',
    })
  }
  return known
}

export async function createWorkerMetrics(options: MetricsOptions): Promise<WorkerMetrics> {
  const exporter = chooseExporter(options.env)
  if (exporter === 'none') return noMetrics
  const { MeterProvider } = await import('@opentelemetry/sdk-metrics')
  const { reader, server } = await startExporter(exporter, options)
  const provider = new MeterProvider({ readers: [reader], resource: resourceOf(options) })
  return instruments(provider.getMeter('openoz/oz-agent-worker', options.version), { provider, server, options })
}

const noMetrics: WorkerMetrics = {
  setConnected() {},
  setActive() {},
  countClaimed() {},
  countRejectedAtCapacity() {},
  countEnded() {},
  countFailure() {},
  countReconnect() {},
  async shutdown() {},
}

async function startExporter(
  name: Exclude<ExporterName, 'none'>,
  options: MetricsOptions,
): Promise<{ reader: IMetricReader; server?: Server }> {
  if (name === 'prometheus') {
    const { PrometheusExporter } = await import('@opentelemetry/exporter-prometheus')
    const exporter = new PrometheusExporter({ preventServerStart: true })
    const server = await listen(options, (request, response) => {
      const path = request.url?.split('?')[0]
      if (path === '/metrics') exporter.getMetricsRequestHandler(request, response)
      else response.writeHead(path === '/healthz' ? 200 : 404).end(path === '/healthz' ? 'ok\n' : 'not found\n')
    })
    return { reader: exporter, server }
  }
  const { ConsoleMetricExporter, PeriodicExportingMetricReader } = await import('@opentelemetry/sdk-metrics')
  if (name === 'console') {
    return { reader: new PeriodicExportingMetricReader({ exporter: new ConsoleMetricExporter() }) }
  }
  const { OTLPMetricExporter } = await import('@opentelemetry/exporter-metrics-otlp-http')
  return { reader: new PeriodicExportingMetricReader({ exporter: new OTLPMetricExporter() }) }
}

/** A worker without metrics is better than no worker: a port in use is logged, and that is all. */
async function listen({ env, log }: MetricsOptions, handler: RequestListener): Promise<Server> {
  const { createServer } = await import('node:http')
  const host = env.OTEL_EXPORTER_PROMETHEUS_HOST || 'localhost'
  const port = Number(env.OTEL_EXPORTER_PROMETHEUS_PORT || 9464)
  const server = createServer(handler)
  await new Promise<void>((resolve) => {
    server.once('error', (error) => {
      log.error({ problem: error.message }, 'Metrics cannot be served')
      resolve()
    })
    server.listen(port, host, resolve)
  })
  const address = server.address()
  if (address !== null && typeof address === 'object') {
    log.info({ host: address.address, port: address.port }, 'Metrics are served under /metrics')
  }
  server.unref()
  return server
}

/** A resource is plain data here; the package that makes them from the environment has detectors that nobody needs. */
function resourceOf({ version, workerId, backend }: MetricsOptions): NonNullable<MeterProviderOptions['resource']> {
  const attributes = {
    'service.name': 'oz-agent-worker',
    'service.version': version,
    'worker.id': workerId,
    'worker.backend': backend,
  }
  const resource: ReturnType<typeof resourceOf> = {
    attributes,
    merge: () => resource,
    getRawAttributes: () => Object.entries(attributes),
  }
  return resource
}

function instruments(
  meter: Meter,
  { provider, server, options }: { provider: MeterProvider; server: Server | undefined; options: MetricsOptions },
): WorkerMetrics {
  const { version, backend, workerId } = options
  const connected = meter.createGauge('oz_worker_connected', { description: '1 while the worker socket is open.' })
  const active = meter.createUpDownCounter('oz_worker_tasks_active', { description: 'Tasks that hold a slot.' })
  const limit = meter.createGauge('oz_worker_tasks_max_concurrent', { description: 'Slots; 0 means no limit.' })
  const claimed = meter.createCounter('oz_worker_tasks_claimed_total', { description: 'Tasks taken.' })
  const rejected = meter.createCounter('oz_worker_tasks_rejected_total', { description: 'Tasks declined.' })
  const completed = meter.createCounter('oz_worker_tasks_completed_total', { description: 'Tasks ended, by result.' })
  const failures = meter.createCounter('oz_worker_task_failures_total', {
    description: 'Failures, by phase and reason.',
  })
  const reconnects = meter.createCounter('oz_worker_websocket_reconnects_total', { description: 'Lost connections.' })
  const info = meter.createGauge('oz_worker_info', { description: 'Always 1; the labels tell.' })
  const duration = meter.createHistogram('oz_worker_task_duration_seconds', {
    description: 'From claim to outcome.',
    // From a question answered in seconds to a working day.
    advice: { explicitBucketBoundaries: [1, 5, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 10_800, 28_800] },
  })

  // Every series but the histogram exists from the start, so that a rate over the first failure is not lost.
  connected.record(0)
  active.add(0)
  limit.record(options.maxConcurrentTasks)
  info.record(1, { version, backend, worker_id: workerId })
  claimed.add(0)
  rejected.add(0, { reason: 'at_capacity' })
  for (const result of results) completed.add(0, { result })
  for (const reason of reconnectReasons) reconnects.add(0, { reason })
  for (const phase of failurePhases) {
    for (const reason of Object.keys(failureReasons)) failures.add(0, { phase, reason })
  }

  let activeNow = 0
  return {
    setConnected: (isConnected) => connected.record(isConnected ? 1 : 0),
    setActive(count) {
      active.add(count - activeNow)
      activeNow = count
    },
    countClaimed: () => claimed.add(1),
    countRejectedAtCapacity: () => rejected.add(1, { reason: 'at_capacity' }),
    countEnded(result, seconds) {
      completed.add(1, { result })
      duration.record(seconds, { result })
    },
    countFailure: (phase, reason) => failures.add(1, { phase, reason }),
    countReconnect: (reason) => reconnects.add(1, { reason }),
    async shutdown() {
      server?.closeAllConnections()
      server?.close()
      await provider.shutdown({ timeoutMillis: 5_000 }).catch(() => {})
    },
  }
}
