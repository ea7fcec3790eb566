import { expect, test } from 'vitest'
import { createLineWriter } from './line-writer.ts'

test('two speakers whose pieces come mixed do not tear each other’s lines', () => {
  let text = ''
  const out = createLineWriter((part) => {
    text += part
  })
  const style = (prefix: string) => ({ prefix, paint: String })
  out.piece('a', 'first li', style('a| '))
  out.piece('a', 'ne\nsecond', style('a| '))
  out.piece('b', 'other\n', style('b| '))
  out.piece('a', 'third\n\nfourth\n', style('a| '))
  out.gap()
  out.gap()
  out.line('end')
  expect(text).toBe('a| first line\na| second\nb| other\na| third\na| \na| fourth\n\nend\n')
})
