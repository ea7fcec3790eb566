import type { ScriptedStep } from './scripted-model.ts'

/** What an overloaded provider says. */
export const overloaded = 'Overloaded'

export function textPieces({ text = [] }: ScriptedStep): string[] {
  return typeof text === 'string' ? [text] : text
}

export function callsOf({ toolCalls = [] }: ScriptedStep) {
  return toolCalls.map(({ id, name, arguments: input }, index) => ({
    id: id ?? `call_${crypto.randomUUID().slice(0, 8)}_${index}`,
    name,
    json: typeof input === 'string' ? input : JSON.stringify(input),
  }))
}

export function finishOf({ finish, toolCalls = [] }: ScriptedStep): NonNullable<ScriptedStep['finish']> {
  return finish ?? (toolCalls.length > 0 ? 'tool_calls' : 'stop')
}

/** `input` holds the cached ones, `output` the reasoning. */
export function tokensOf({ usage = {} }: ScriptedStep) {
  const { input = 10, output = 5, cached = 0, cacheWrite = 0, reasoning = 0 } = usage
  return { input, output, cached, cacheWrite, reasoning }
}
