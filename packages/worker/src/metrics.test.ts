import { expect, test } from 'vitest'
import { chooseExporter } from './metrics.ts'
import { startControlPlane } from './test-support/control-plane.ts'
import { until } from './test-support/until.ts'
import { createFolder, startWorker } from './test-support/worker.ts'

test('nothing is exported unasked, an OTLP address is asking, and unknown names are refused', () => {
  expect(chooseExporter({})).toBe('none')
  expect(chooseExporter({ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318' })).toBe('otlp')
  expect(chooseExporter({ OTEL_METRICS_EXPORTER: 'none', OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c' })).toBe('none')
  expect(() => chooseExporter({ OTEL_METRICS_EXPORTER: 'statsd' })).toThrow(/statsd is none of/)
  const grpc = { OTEL_METRICS_EXPORTER: 'otlp', OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }
  expect(() => chooseExporter(grpc)).toThrow(/OTEL_EXPORTER_OTLP_PROTOCOL/)
})

test('the catalogue is served from the start, and counts what happens', async () => {
  using folder = createFolder()
  await using cp = await startControlPlane()
  await using worker = startWorker(cp, folder.path, {
    maxConcurrentTasks: 2,
    oz: 'exit 5',
    env: {
      PATH: process.env.PATH,
      HOME: process.env.HOME,
      OTEL_METRICS_EXPORTER: 'prometheus',
      OTEL_EXPORTER_PROMETHEUS_HOST: '127.0.0.1',
      OTEL_EXPORTER_PROMETHEUS_PORT: '0',
    },
  })
  await worker.listening()
  const line = await until('the address', () => worker.lines.find((text) => text.includes('Metrics are served')))
  const address = `http://127.0.0.1:${(JSON.parse(line) as { port: number }).port}`
  expect(await (await fetch(`${address}/healthz`)).text()).toBe('ok\n')

  const before = await (await fetch(`${address}/metrics`)).text()
  expect(value(before, 'oz_worker_connected')).toBe(1)
  expect(value(before, 'oz_worker_tasks_max_concurrent')).toBe(2)
  expect(value(before, 'oz_worker_tasks_active')).toBe(0)
  expect(value(before, 'oz_worker_tasks_rejected_total', 'reason="at_capacity"')).toBe(0)
  expect(value(before, 'oz_worker_task_failures_total', 'phase="backend",reason="container_exit"')).toBe(0)
  expect(value(before, 'oz_worker_websocket_reconnects_total', 'reason="dial_failed"')).toBe(0)
  expect(before).toMatch(/oz_worker_info\{.*worker_id="test-worker".*\} 1/)
  expect(before).not.toContain('oz_worker_task_duration_seconds_bucket')

  const { execution_id } = cp.assign()
  await cp.outcome(execution_id)
  await worker.event('task_ended')
  const after = await (await fetch(`${address}/metrics`)).text()
  expect(value(after, 'oz_worker_tasks_claimed_total')).toBe(1)
  expect(value(after, 'oz_worker_tasks_completed_total', 'result="failed"')).toBe(1)
  expect(value(after, 'oz_worker_task_failures_total', 'phase="backend",reason="container_exit"')).toBe(1)
  expect(value(after, 'oz_worker_task_duration_seconds_count', 'result="failed"')).toBe(1)
})

function value(text: string, name: string, labels = ''): number | undefined {
  const line = text
    .split('\n')
    .find((candidate) => new RegExp(`^${name}[{ ]`).test(candidate) && candidate.includes(labels))
  return line === undefined ? undefined : Number(line.split(' ').at(-1))
}
