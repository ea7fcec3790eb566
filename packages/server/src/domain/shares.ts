import { AppError, parseShare, type Share, uniteShares } from '@openoz/protocol'

/** What a request grants, one grant for each subject. Throws `share_invalid` for an address that is none, or that stands beside another subject. */
export function readShares(shares: readonly Share[]): Share[] {
  return uniteShares(shares.map(readShare))
}

function readShare(share: Share): Share {
  if (share.subject !== 'user') {
    if (share.email === undefined) return share
    throw new AppError('share_invalid', { share: `${share.subject} with an e-mail address` })
  }
  const read = parseShare(`${share.email ?? 'nobody'}:${share.access}`)
  if (read.subject !== 'user') throw new AppError('share_invalid', { share: `user ${share.email}` })
  return read
}
