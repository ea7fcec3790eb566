import { startServerProcess } from './control-plane.ts'
import { deliver, openOurs } from './fan-out.ts'
import { bearer, call, startProvider, target } from './gateway.ts'
import { startLifecycles, startLiveAgents } from './live-agents.ts'
import { atRate } from './load.ts'
import { alone, type Benchmark } from './measurement.ts'
import { stop } from './programs.ts'

/** That are watched; as many others call models, of which each call is an event of its run's log. */
const agents = 4
/** Half of what each of them is asked for alone. */
const full = { seconds: 20, callsPerSecond: 500, livesPerSecond: 100, deliveriesPerSecond: 12_500, viewersOfRun: 50 }
const quick = { seconds: 4, callsPerSecond: 50, livesPerSecond: 10, deliveriesPerSecond: 1_250, viewersOfRun: 10 }

/**
 * Gateway, fan-out and API at half of their targets at once, in one server process: how late its event loop is. Every other call of a model is
 * streamed; the API's part is whole lives of runs.
 */
export const mixedBenchmark: Benchmark = {
  name: 'mixed',
  async run({ isQuick }) {
    const size = isQuick ? quick : full
    await using stack = new AsyncDisposableStack()
    const provider = await startProvider()
    stack.defer(() => stop(provider.child, 'SIGKILL'))
    const controlPlane = stack.use(await startServerProcess({ OPENAI_BASE_URL: `${provider.url}/v1` }))
    const live = await startLiveAgents(controlPlane, 2 * agents)
    const channels = await openOurs(controlPlane, live.slice(0, agents))
    const lifecycles = await startLifecycles(controlPlane)
    stack.defer(() => lifecycles.close())
    const tokens = live.slice(agents).map(({ token }) => token)
    const gateway = `${controlPlane.url}/llm/openai/v1/chat/completions`
    // Everything for the first time.
    await lifecycles.live()
    await call(target(gateway, bearer(tokens, 0)), true)

    const { seconds } = size
    const [delivery, calls, lives] = await Promise.all([
      deliver(channels, size),
      atRate({ perSecond: size.callsPerSecond, seconds }, (i) => call(target(gateway, bearer(tokens, i)), i % 2 === 0)),
      atRate({ perSecond: size.livesPerSecond, seconds }, lifecycles.live),
    ])
    const isKept = (made: number, asked: number) => made >= 0.9 * asked
    const isFull =
      isKept(delivery.perSecond, size.deliveriesPerSecond) &&
      isKept(calls.perSecond, size.callsPerSecond) &&
      isKept(lives.perSecond, size.livesPerSecond)
    const made = [
      `${Math.round(calls.perSecond)} of ${size.callsPerSecond} gateway calls/s`,
      `${Math.round(delivery.perSecond)} of ${size.deliveriesPerSecond} deliveries/s`,
      `${Math.round(lives.perSecond)} of ${size.livesPerSecond} runs/s`,
    ]
    return [
      alone(`event loop of the server at ${made.join(', ')}: delay, p99`, 'ms', delivery.loopDelayP99Ms, {
        words: '≤ 50 ms at all of them',
        isMet: (ms) => ms <= 50 && isFull,
      }),
    ]
  },
}
