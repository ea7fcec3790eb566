import { connect } from 'node:net'

/**
 * Readers of an event stream that cost next to nothing: they count frames in the bytes as these come, so that the one who measures does not
 * take the time that the one who is measured needs.
 */
export interface RawViewer {
  frames: number
  /** The other side has ended the stream. */
  isBroken: boolean
  close(): void
}

interface RawViewerOptions {
  url: string
  path: string
  token?: string
  /** So many frames more have come. */
  onFrames?: (viewer: RawViewer, count: number) => void
}

/** A frame begins with its id; its data, being JSON, has no line break. */
const frameStart = Buffer.from('\nid: ')

/** Resolves when the answer has begun. */
export function openRawViewer({ url, path, token, onFrames }: RawViewerOptions): Promise<RawViewer> {
  const { hostname, port, host } = new URL(url)
  const opened = Promise.withResolvers<RawViewer>()
  const socket = connect(Number(port), hostname)
  let edge: Buffer = Buffer.alloc(0)
  let isOpen = false
  let isClosed = false
  const viewer: RawViewer = {
    frames: 0,
    isBroken: false,
    close() {
      isClosed = true
      socket.destroy()
    },
  }
  const authorization = token === undefined ? '' : `authorization: Bearer ${token}\r\n`
  socket.write(`GET ${path} HTTP/1.1\r\nhost: ${host}\r\n${authorization}accept: text/event-stream\r\n\r\n`)
  socket.on('data', (bytes: Buffer) => {
    if (!isOpen) {
      const head = bytes.toString('latin1', 0, 200).split('\r\n', 1)[0] ?? ''
      if (!head.includes(' 200 ')) return opened.reject(new Error(`${path}: ${head}`))
      isOpen = true
      opened.resolve(viewer)
    }
    const count = countIn(bytes) + countIn(Buffer.concat([edge, bytes.subarray(0, frameStart.length - 1)]))
    edge = bytes.length < frameStart.length ? Buffer.concat([edge, bytes]) : bytes
    edge = edge.subarray(-(frameStart.length - 1))
    if (count === 0) return
    viewer.frames += count
    onFrames?.(viewer, count)
  })
  socket.on('error', () => {})
  socket.on('close', () => {
    opened.reject(new Error(`${path}: the connection closed`))
    viewer.isBroken = !isClosed
  })
  return opened.promise
}

function countIn(bytes: Buffer): number {
  let count = 0
  for (let at = bytes.indexOf(frameStart); at >= 0; at = bytes.indexOf(frameStart, at + frameStart.length)) count++
  return count
}
