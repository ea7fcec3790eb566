import { AppError, type RunMode } from '@openoz/protocol'

/** `--metadata key=value`, as often as there are labels. */
export function readMetadata(texts: readonly string[]): Record<string, string> | undefined {
  if (texts.length === 0) return undefined
  return Object.fromEntries(
    texts.map((text) => {
      const at = text.indexOf('=')
      if (at < 1)
        throw new AppError('option_invalid', {
          option: '--metadata',
          problem: `"${text}" is not of the form key=value`,
        })
      return [text.slice(0, at), text.slice(at + 1)]
    }),
  )
}

/** A prompt may begin with the mode that it is meant for: `/plan How would you …`. */
export function readPromptMode(text: string): { prompt: string; mode?: RunMode } {
  const [, mode, prompt = ''] = /^\s*\/(plan|orchestrate)(?:\s+([\s\S]*))?$/.exec(text) ?? []
  return mode === undefined ? { prompt: text } : { prompt, mode: mode as RunMode }
}
