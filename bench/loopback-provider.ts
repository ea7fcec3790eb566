/** A model provider for the gateway's benchmark: small answers at once, on OpenAI's wire. Prints its address; ends with its stdin. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

const words = 'The sum of two and two is four, as everybody knows.'.split(' ')
const usage = { prompt_tokens: 12, completion_tokens: words.length, total_tokens: 12 + words.length }
const about = { id: 'chatcmpl-1', created: 1, model: 'bench' }

const whole = JSON.stringify({
  ...about,
  object: 'chat.completion',
  choices: [{ index: 0, message: { role: 'assistant', content: words.join(' ') }, finish_reason: 'stop' }],
  usage,
})
const chunk = (choices: object[], more: object = {}) =>
  `data: ${JSON.stringify({ ...about, object: 'chat.completion.chunk', choices, ...more })}\n\n`
const pieces = [
  ...words.map((content) => chunk([{ index: 0, delta: { content }, finish_reason: null }])),
  chunk([{ index: 0, delta: {}, finish_reason: 'stop' }]),
  chunk([], { usage }),
  'data: [DONE]\n\n',
]

const server = createServer((request, response) => {
  const parts: Buffer[] = []
  request.on('data', (part: Buffer) => parts.push(part))
  request.on('end', () => {
    if (request.method === 'GET') {
      response.writeHead(200, { 'content-type': 'application/json' }).end('{"object":"list","data":[{"id":"bench"}]}')
    } else if (JSON.parse(Buffer.concat(parts).toString()).stream === true) {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      for (const piece of pieces) response.write(piece)
      response.end()
    } else {
      const length = Buffer.byteLength(whole)
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': length }).end(whole)
    }
  })
})
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`))
process.stdin.on('end', () => process.exit()).resume()
