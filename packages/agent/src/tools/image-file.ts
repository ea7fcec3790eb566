/** What models take; by content, since names lie. */
export interface ImageKind {
  mediaType: 'image/png' | 'image/jpeg' | 'image/gif' | 'image/webp'
  /** Pixels; undefined: the file is broken, and a model's provider would refuse the whole conversation for it. */
  size: { width: number; height: number } | undefined
}

/** undefined: no picture. */
export function imageKind(bytes: Buffer): ImageKind | undefined {
  const starts = bytes.toString('latin1', 0, 16)
  if (starts.startsWith('\x89PNG\r\n\x1A\n')) return { mediaType: 'image/png', size: attempt(() => pngSize(bytes)) }
  if (starts.startsWith('\xFF\xD8\xFF')) return { mediaType: 'image/jpeg', size: attempt(() => jpegSize(bytes)) }
  if (/^GIF8[79]a/.test(starts)) {
    return { mediaType: 'image/gif', size: attempt(() => sized(bytes.readUInt16LE(6), bytes.readUInt16LE(8))) }
  }
  if (/^RIFF.{4}WEBP/s.test(starts)) return { mediaType: 'image/webp', size: attempt(() => webpSize(bytes)) }
  return undefined
}

type Size = ImageKind['size']

/** Reading past the end is how broken files show themselves. */
function attempt(read: () => Size): Size {
  try {
    return read()
  } catch {
    return undefined
  }
}

function sized(width: number, height: number): Size {
  return width > 0 && height > 0 ? { width, height } : undefined
}

function pngSize(bytes: Buffer): Size {
  const isWhole = bytes.toString('latin1', 12, 16) === 'IHDR' && bytes.lastIndexOf('IEND') > 0
  return isWhole ? sized(bytes.readUInt32BE(16), bytes.readUInt32BE(20)) : undefined
}

/** The size is in the frame header: the first marker C0 to CF that is no table. */
function jpegSize(bytes: Buffer): Size {
  if (bytes.lastIndexOf('\xFF\xD9', undefined, 'latin1') < 0) return undefined
  for (let at = 2; ; ) {
    if (bytes.readUInt8(at) !== 0xff) return undefined
    const marker = bytes.readUInt8(at + 1)
    if (marker === 0xff) {
      at += 1
      continue
    }
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)
    if (isFrame) return sized(bytes.readUInt16BE(at + 7), bytes.readUInt16BE(at + 5))
    at += 2 + bytes.readUInt16BE(at + 2)
  }
}

function webpSize(bytes: Buffer): Size {
  if (bytes.readUInt32LE(4) + 8 > bytes.length) return undefined
  switch (bytes.toString('latin1', 12, 16)) {
    case 'VP8 ':
      return sized(bytes.readUInt16LE(26) & 0x3fff, bytes.readUInt16LE(28) & 0x3fff)
    case 'VP8L': {
      const bits = bytes.readUInt32LE(21)
      return sized((bits & 0x3fff) + 1, ((bits >>> 14) & 0x3fff) + 1)
    }
    case 'VP8X':
      return sized(bytes.readUIntLE(24, 3) + 1, bytes.readUIntLE(27, 3) + 1)
    default:
      return undefined
  }
}
