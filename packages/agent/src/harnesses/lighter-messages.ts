import type { ModelMessage } from 'ai'
import { wholeCharacters } from '../live-output.ts'

/** Messages in which every output, every argument and every long text keeps only its beginning and its end, and pictures are left out. */
export function lighten(messages: readonly ModelMessage[], keptCharacters: number): ModelMessage[] {
  return messages.map((message) => lighter(message, keptCharacters))
}

/** The same messages, each as it was, where there are no pictures. */
export function withoutPictures(messages: readonly ModelMessage[]): ModelMessage[] {
  return lighten(messages, Number.POSITIVE_INFINITY)
}

/** What people say is worth more than what tools say. */
const spokenFactor = 10

function lighter(message: ModelMessage, kept: number): ModelMessage {
  if (message.role === 'system') return message
  if (typeof message.content === 'string') {
    const content = withoutMiddle(message.content, kept * spokenFactor)
    return content === message.content ? message : ({ ...message, content } as ModelMessage)
  }
  let isChanged = false
  const content = message.content.map((part) => {
    const light = lighterPart(part, kept)
    if (light !== part) isChanged = true
    return light
  })
  return isChanged ? ({ ...message, content } as ModelMessage) : message
}

type Part = Exclude<ModelMessage['content'], string>[number]

function lighterPart(part: Part, kept: number): Part {
  switch (part.type) {
    case 'file':
    case 'image':
      return { type: 'text', text: '[A picture was here; it was left out.]' }
    case 'text': {
      const text = withoutMiddle(part.text, kept * spokenFactor)
      return text === part.text ? part : { ...part, text }
    }
    case 'tool-call': {
      const input = lighterValue(part.input, kept)
      return input === part.input ? part : { ...part, input }
    }
    case 'tool-result': {
      if (part.output.type !== 'text') return part
      const value = withoutMiddle(part.output.value, kept)
      return value === part.output.value ? part : { ...part, output: { ...part.output, value } }
    }
    default:
      return part
  }
}

/** Arguments stay an object of the same form; only its long texts are shorter. */
function lighterValue(value: unknown, kept: number): unknown {
  if (typeof value === 'string') return withoutMiddle(value, kept)
  if (typeof value !== 'object' || value === null || JSON.stringify(value).length <= kept) return value
  if (Array.isArray(value)) {
    const items = value.map((item) => lighterValue(item, kept))
    return items.every((item, index) => item === value[index]) ? value : items
  }
  const entries = Object.entries(value).map(([key, item]): [string, unknown] => [key, lighterValue(item, kept)])
  const isSame = entries.every(([key, item]) => item === (value as Record<string, unknown>)[key])
  return isSame ? value : Object.fromEntries(entries)
}

export function withoutMiddle(text: string, kept: number): string {
  if (text.length <= kept + 200) return text
  const head = wholeCharacters(text, Math.floor(kept * 0.6))
  const tail = text.slice(text.length - Math.floor(kept * 0.4))
  const missing = text.length - head.length - tail.length
  // A character that was cut in two is not one any more.
  const whole = tail.replace(/^[\uDC00-\uDFFF]/, '')
  return `${head}\n[… ${missing} characters were left out to save room …]\n${whole}`
}
