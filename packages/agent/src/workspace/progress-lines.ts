/** git rewrites its progress lines many times a second; a log wants each of them once. */
const progressEveryMs = 2_000

/** Passes on whole lines, and of those that end in a carriage return one every two seconds. */
export function createProgressLines(onText: (text: string) => void): { push(text: string): void; end(): void } {
  let rest = ''
  let lastProgressAt = 0
  return {
    push(text) {
      const parts = (rest + text).split(/(?<=[\r\n])/)
      rest = /[\r\n]$/.test(parts.at(-1) ?? '') ? '' : (parts.pop() ?? '')
      for (const part of parts) {
        if (part.endsWith('\n')) onText(part)
        else if (performance.now() - lastProgressAt >= progressEveryMs) {
          lastProgressAt = performance.now()
          onText(`${part.slice(0, -1)}\n`)
        }
      }
    },
    end() {
      if (rest !== '') onText(`${rest}\n`)
      rest = ''
    },
  }
}
