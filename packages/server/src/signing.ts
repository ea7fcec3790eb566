import { createHmac, timingSafeEqual } from 'node:crypto'

/** Signs what this installation must know again later without keeping it: links that are good without a key. */
export interface Signing {
  /** Safe in URLs. The text says what it is for, so that one signature never serves two purposes. */
  sign(text: string): string
  verify(text: string, signature: string): boolean
}

/** Every replica has the same key, derived from the master key. */
export function createSigning(key: Buffer): Signing {
  const mac = (text: string) => createHmac('sha256', key).update(text).digest()
  return {
    sign: (text) => mac(text).toString('base64url'),
    verify(text, signature) {
      const wanted = mac(text)
      const given = Buffer.from(signature, 'base64url')
      return given.byteLength === wanted.byteLength && timingSafeEqual(given, wanted)
    },
  }
}
