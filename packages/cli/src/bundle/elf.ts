import { open } from 'node:fs/promises'

/** Where in a program stands which loader starts it. */
export interface Interpreter {
  offset: number
  /** Of the whole place, with its zeros. */
  size: number
  path: string
}

/** The offsets are those of 64-bit ELF, the lowest byte first: all that there are bundles for. */
const headerBytes = 64
const maxEntries = 64
const interpreterEntry = 3

/** undefined for a library, a program that needs no loader, and what is no such file. */
export async function findInterpreter(file: string): Promise<Interpreter | undefined> {
  await using handle = await open(file, 'r')
  const read = async (offset: number, length: number) => {
    const buffer = Buffer.alloc(length)
    const { bytesRead } = await handle.read(buffer, 0, length, offset)
    return bytesRead === length ? buffer : undefined
  }
  const header = await read(0, headerBytes)
  if (!header || !isElf64(header)) return undefined
  const entryBytes = header.readUInt16LE(54)
  const entries = header.readUInt16LE(56)
  if (entries > maxEntries || entryBytes < 56) return undefined
  const table = await read(Number(header.readBigUInt64LE(32)), entries * entryBytes)
  for (let at = 0; table && at < table.length; at += entryBytes) {
    if (table.readUInt32LE(at) !== interpreterEntry) continue
    const offset = Number(table.readBigUInt64LE(at + 8))
    const size = Number(table.readBigUInt64LE(at + 32))
    const place = size > 4096 ? undefined : await read(offset, size)
    return place && { offset, size, path: place.toString('utf8').replace(/\0+$/, '') }
  }
  return undefined
}

function isElf64(header: Buffer): boolean {
  return header.readUInt32BE(0) === 0x7f454c46 && header[4] === 2 && header[5] === 1
}
