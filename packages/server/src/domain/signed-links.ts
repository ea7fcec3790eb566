import { AppError } from '@openoz/protocol'
import { findDatabaseTime } from '../store/control-plane.ts'
import type { Ctx } from './context.ts'

/**
 * Links that are good without a key: to hand to a browser, or to a program that has none. What a link allows is in its signature (the method, the
 * path and its parameters), so it leads to one thing and cannot be bent to another.
 */

/** Long enough for a person to hand a link to a program, short enough that a leaked one is soon worth nothing. */
const linkSeconds = 15 * 60

export interface LinkTarget {
  method: 'GET' | 'PUT'
  /** Below `/api/v1`, as it stands in the URL. */
  path: string
  /** Parameters that belong to what is signed. */
  query?: Record<string, string>
}

export interface LinkSigner {
  expiresAt: Date
  sign(target: LinkTarget): string
}

/** All links of one answer end at the same time. */
export async function openLinkSigner(ctx: Ctx): Promise<LinkSigner> {
  const expires = (await databaseSeconds(ctx)) + linkSeconds
  return {
    expiresAt: new Date(expires * 1000),
    sign(target) {
      const query = new URLSearchParams({
        ...target.query,
        expires: String(expires),
        signature: ctx.signing.sign(signedText(target, expires)),
      })
      return `${ctx.publicUrl}/api/v1${target.path}?${query}`
    },
  }
}

/** Rejects with `link_invalid`, whatever is wrong with it. */
export async function requireSignedLink(
  ctx: Ctx,
  target: LinkTarget,
  given: { expires?: string | undefined; signature?: string | undefined },
): Promise<void> {
  const expires = Number(given.expires)
  const isSigned =
    Number.isSafeInteger(expires) && ctx.signing.verify(signedText(target, expires), given.signature ?? '')
  if (!isSigned || expires < (await databaseSeconds(ctx))) throw new AppError('link_invalid')
}

/** Links made by one replica are judged by another. */
async function databaseSeconds(ctx: Ctx): Promise<number> {
  return Math.floor((await findDatabaseTime(ctx.db)).getTime() / 1000)
}

/** Parameters in the order of their names: nobody promises to pass them on in ours. */
function signedText({ method, path, query = {} }: LinkTarget, expires: number): string {
  const parameters = new URLSearchParams(Object.entries(query).toSorted(([a], [b]) => (a < b ? -1 : 1)))
  return `${method} ${path} ${parameters} ${expires}`
}
