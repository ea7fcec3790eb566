import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { AppError } from '@openoz/protocol'

/** Any of these names a provider; the control plane reads the same ones. */
const providerVariables = [
  'ANTHROPIC_API_KEY',
  'ANTHROPIC_BASE_URL',
  'OPENAI_API_KEY',
  'OPENAI_BASE_URL',
  'OLLAMA_HOST',
  'GEMINI_API_KEY',
  'AWS_BEARER_TOKEN_BEDROCK',
  'AZURE_OPENAI_API_KEY',
] as const

/** Who thinks in this demo. */
export interface ModelChoice extends AsyncDisposable {
  isScripted: boolean
  /** In plain words, for the beginning. */
  text: string
  /** The environment of the control plane. */
  env: NodeJS.ProcessEnv
}

export async function chooseModel(env: NodeJS.ProcessEnv, { needsReal }: { needsReal: boolean }): Promise<ModelChoice> {
  const set = providerVariables.filter((name) => (env[name] ?? '').trim() !== '')
  if (set.length > 0) {
    return {
      isScripted: false,
      text: `A real model thinks (${set.join(', ')}).`,
      env,
      [Symbol.asyncDispose]: async () => {},
    }
  }
  if (needsReal) {
    throw new AppError('usage', {
      problem: `--repo needs a real model. Set one of ${providerVariables.slice(0, -1).join(', ')} or ${providerVariables.at(-1)}.`,
    })
  }
  const model = await startScriptedModel()
  return {
    isScripted: true,
    text:
      'No real model is connected, so a small script plays one: it knows this sample project and nothing else. Control plane, ' +
      'worker, agent and tools are the real ones. For a real model, set ANTHROPIC_API_KEY, OPENAI_API_KEY or OLLAMA_HOST.',
    env: { ...env, OPENAI_BASE_URL: model.url },
    [Symbol.asyncDispose]: model.stop,
  }
}

async function startScriptedModel(): Promise<{ url: string; stop: () => Promise<void> }> {
  const program = fileURLToPath(new URL('./scripted-model.ts', import.meta.url))
  // Its stdin ends with this process, however it ends, and that ends it.
  const child = spawn(process.execPath, [program], { stdio: ['pipe', 'pipe', 'inherit'], detached: true })
  const { url } = JSON.parse(await firstLine(child)) as { url: string }
  return {
    url,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return
      const exited = once(child, 'exit')
      child.stdin?.end()
      await exited
    },
  }
}

async function firstLine(child: ChildProcess): Promise<string> {
  if (!child.stdout) throw new Error('The scripted model has no output.')
  for await (const line of createInterface({ input: child.stdout })) return line
  throw new Error('The scripted model ended before it listened.')
}
