import { AppError, isUuid, type RunMode } from '@openoz/protocol'

/** `--metadata key=value`, as often as there are labels. */
export function readMetadata(texts: readonly string[]): Record<string, string> | undefined {
  if (texts.length === 0) return undefined
  return Object.fromEntries(
    texts.map((text) => {
      const at = text.indexOf('=')
      if (at < 1)
        throw new AppError('flag_invalid', {
          option: '--metadata',
          problem: `"${text}" is not of the form key=value`,
        })
      return [text.slice(0, at), text.slice(at + 1)]
    }),
  )
}

/** `--conversation`: said here, since the server can only speak of a field. */
export function readConversationId(text: string | undefined): string | undefined {
  if (text === undefined || isUuid(text)) return text
  const problem = `"${text}" is no id of a conversation (oz run get shows it)`
  throw new AppError('flag_invalid', { option: '--conversation', problem })
}

/** A prompt may begin with the mode that it is meant for: `/plan How would you …`. */
export function readPromptMode(text: string): { prompt: string; mode?: RunMode } {
  const [, mode, prompt = ''] = /^\s*\/(plan|orchestrate)(?:\s+([\s\S]*))?$/.exec(text) ?? []
  return mode === undefined ? { prompt: text } : { prompt, mode: mode as RunMode }
}
