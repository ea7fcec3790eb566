// Whether the worker of this container is connected to its control plane, by its own metrics. Somebody who sends them elsewhere has other means.
const {
  OTEL_METRICS_EXPORTER: exporter,
  OTEL_EXPORTER_PROMETHEUS_HOST: host,
  OTEL_EXPORTER_PROMETHEUS_PORT: port,
} = process.env
if (exporter !== 'prometheus') process.exit(0)
const reached = host === undefined || host === '' || host === '0.0.0.0' || host === '::' ? 'localhost' : host
try {
  const answer = await fetch(`http://${reached}:${port || 9464}/metrics`, { signal: AbortSignal.timeout(4_000) })
  process.exit(/^oz_worker_connected(\{.*\})? 1( |$)/m.test(await answer.text()) ? 0 : 1)
} catch {
  process.exit(1)
}
