/**
 * Reads `application/vnd.amazon.eventstream` as its bytes pass by: length of the frame, length of its headers, a checksum, headers, payload, a
 * checksum; integers are big-endian. Whoever takes the frames checks the sums. This only wants to know what they say, so bytes that are no
 * frames end the reading, silently.
 */

const preludeBytes = 12
const checksumBytes = 4

/** `onFrame` gets the type of the event (or exception) and its payload. A frame above `maxBytes` is skipped. */
export function createFrameReader(maxBytes: number, onFrame: (type: string, payload: Buffer) => void) {
  let held: Buffer[] = []
  let heldBytes = 0
  /** Of the frame that has begun; 0 while its length is not known. */
  let frameBytes = 0
  let skipBytes = 0
  let isLost = false

  function take(bytes: Buffer): void {
    let at = 0
    while (!isLost && bytes.length - at >= preludeBytes) {
      const length = bytes.readUInt32BE(at)
      if (length < preludeBytes + checksumBytes) isLost = true
      else if (length > maxBytes) {
        skipBytes = length
        const skipped = Math.min(skipBytes, bytes.length - at)
        skipBytes -= skipped
        at += skipped
      } else if (length > bytes.length - at) {
        frameBytes = length
        break
      } else {
        readFrame(bytes.subarray(at, at + length), onFrame)
        at += length
      }
    }
    held = at < bytes.length ? [bytes.subarray(at)] : []
    heldBytes = bytes.length - at
  }

  return {
    push(chunk: Buffer): void {
      if (isLost) return
      const rest = skipBytes > 0 ? chunk.subarray(skipBytes) : chunk
      skipBytes = Math.max(0, skipBytes - chunk.length)
      if (rest.length === 0) return
      held.push(rest)
      heldBytes += rest.length
      if (heldBytes < Math.max(frameBytes, preludeBytes)) return
      frameBytes = 0
      take(held.length === 1 ? (held[0] ?? rest) : Buffer.concat(held))
    },
  }
}

function readFrame(frame: Buffer, onFrame: (type: string, payload: Buffer) => void): void {
  const headersEnd = preludeBytes + frame.readUInt32BE(4)
  if (headersEnd > frame.length - checksumBytes) return
  const headers = readTexts(frame.subarray(preludeBytes, headersEnd))
  const type = headers[':event-type'] ?? headers[':exception-type']
  if (type !== undefined) onFrame(type, frame.subarray(headersEnd, frame.length - checksumBytes))
}

/** Bytes of a header's value by its type; 6 and 7 say their length themselves. */
const valueBytes = [0, 0, 1, 2, 4, 8, undefined, undefined, 8, 16]
const textType = 7

function readTexts(headers: Buffer): Record<string, string> {
  const texts: Record<string, string> = {}
  for (let at = 0; at < headers.length; ) {
    const nameEnd = at + 1 + (headers[at] ?? 0)
    const type = headers[nameEnd] ?? -1
    const isSized = type === 6 || type === textType
    if (nameEnd + (isSized ? 3 : 1) > headers.length) break
    const start = nameEnd + (isSized ? 3 : 1)
    const length = isSized ? headers.readUInt16BE(nameEnd + 1) : valueBytes[type]
    if (length === undefined) break
    if (type === textType)
      texts[headers.toString('utf8', at + 1, nameEnd)] = headers.toString('utf8', start, start + length)
    at = start + length
  }
  return texts
}
