import { AppError } from './errors.ts'
import type { Share } from './shares.ts'

/**
 * Reads `SUBJECT[:view|:edit]`, where SUBJECT is `team`, `public` or an e-mail address; the empty text is oneself. Throws `share_invalid`.
 */
export function parseShare(text: string): Share {
  if (text === '') return { subject: 'self', access: 'edit' }
  const colon = text.indexOf(':')
  const subject = colon === -1 ? text : text.slice(0, colon)
  const access = colon === -1 ? 'view' : text.slice(colon + 1)
  if (access !== 'view' && access !== 'edit') throw new AppError('share_invalid', { share: text })
  if (subject === 'team' || subject === 'public') return { subject, access }
  if (!/^[^\s@:]+@[^\s@:]+$/.test(subject) || subject.length > 320) throw new AppError('share_invalid', { share: text })
  return { subject: 'user', email: subject.toLowerCase(), access }
}

/** One grant for each subject, the stronger one of two. */
export function uniteShares(shares: readonly Share[]): Share[] {
  const united = new Map<string, Share>()
  for (const one of shares) {
    const key = `${one.subject} ${one.email ?? ''}`
    if (united.get(key)?.access !== 'edit') united.set(key, one)
  }
  return [...united.values()]
}
