import { StringDecoder } from 'node:string_decoder'

/** No line of an engine is nearly as long. */
const maxLineLength = 4 * 1024 * 1024

/** One JSON object per line, as pulls, imports and events are told; a line may come in pieces. */
export async function* jsonLines(stream: AsyncIterable<Buffer>): AsyncGenerator<Record<string, unknown>> {
  const decoder = new StringDecoder('utf8')
  let rest = ''
  for await (const chunk of stream) {
    rest += decoder.write(chunk)
    const lines = rest.split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) if (line.trim() !== '') yield parseLine(line)
    if (rest.length > maxLineLength) throw new Error('the engine sent a line without end')
  }
  if (rest.trim() !== '') yield parseLine(rest)
}

function parseLine(line: string): Record<string, unknown> {
  const value: unknown = JSON.parse(line)
  return typeof value === 'object' && value !== null ? { ...value } : {}
}
