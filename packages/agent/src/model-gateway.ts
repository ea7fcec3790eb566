import { createDialer } from '@openoz/machine'
import type { ModelGateway } from './harnesses/harness.ts'
import type { LiveExecution } from './live-execution.ts'

export interface OpenModelGateway extends ModelGateway {
  close(): Promise<void>
}

const executionIsOver = /^execution_(superseded|token_ended)$/

/**
 * The way to the model: at the control plane, or at an address of its own. A refusal of the execution itself is noticed here, whichever harness
 * meets it. Throws `option_invalid` for an address that cannot be used.
 */
export function openModelGateway(execution: LiveExecution): OpenModelGateway {
  const { hello, executionToken, stop, env } = execution
  const address = hello.model?.base_url
  const ownDialer = address === undefined ? undefined : createDialer({ serverUrl: address, env })
  const dialer = ownDialer ?? execution.dialer
  return {
    token: executionToken,
    async fetch(path, init) {
      const response = await dialer.fetch(path, init)
      const isRefused = response.status === 401 || response.status === 410
      if (isRefused && executionIsOver.test((await refusalCode(response)) ?? '')) {
        stop.stop({ kind: 'abandon', why: 'superseded', detail: 'the model gateway says so' })
      }
      return response
    },
    close: async () => ownDialer?.close(),
  }
}

/** The gateway's refusals have the shape of the provider that it stands for, so their code is in a header; the control plane's own are problems. */
async function refusalCode(response: Response): Promise<string | undefined> {
  const code = response.headers.get('x-oz-error-code')
  if (code !== null) return code
  const text = await response.clone().text()
  return /"(execution_(?:superseded|token_ended))"/.exec(text)?.[1]
}
