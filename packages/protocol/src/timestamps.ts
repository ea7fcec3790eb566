import { z } from 'zod'

/** As the API says it. */
export const timestamp = z.iso.datetime({ offset: true }).describe('RFC 3339, UTC')

/** As people and libraries say it: without an offset it is UTC, as Python's naive datetimes mean it. Becomes RFC 3339 in UTC. */
export const instant = z.iso.datetime({ offset: true, local: true }).transform((text, context) => {
  const time = Date.parse(/(z|[+-]\d\d(:?\d\d)?)$/i.test(text) ? text : `${text}Z`)
  if (!Number.isNaN(time)) return new Date(time).toISOString()
  context.addIssue({ code: 'custom', message: 'is no point in time' })
  return z.NEVER
})
