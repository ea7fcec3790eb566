import { get } from 'node:http'

interface ReadOptions {
  token: string
  signal: AbortSignal
  lastEventId?: number
}

/** Whole frames with an id of one connection to an event stream; resolves when it has ended or the signal was aborted. */
export function readFrames(
  url: string,
  { token, signal, lastEventId }: ReadOptions,
  onFrame: (frame: { id: number; data: string }) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const headers = {
      authorization: `Bearer ${token}`,
      ...(lastEventId === undefined ? {} : { 'last-event-id': String(lastEventId) }),
    }
    const request = get(url, { headers, signal, agent: false }, (response) => {
      let rest = ''
      response.setEncoding('utf8').on('data', (text: string) => {
        const frames = (rest + text).split('\n\n')
        rest = frames.pop() ?? ''
        for (const frame of frames) {
          const id = /^id: (\d+)$/m.exec(frame)?.[1]
          // What is left of this piece belongs to a connection that was given up.
          if (id === undefined || signal.aborted) continue
          onFrame({ id: Number(id), data: /^data: (.*)$/m.exec(frame)?.[1] ?? '' })
        }
      })
      response.on('error', () => resolve()).on('end', resolve)
    })
    request.on('error', (error) => (signal.aborted ? resolve() : reject(error)))
  })
}
