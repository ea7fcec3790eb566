import type { RunSource } from '@openoz/protocol'
import type { Context } from 'hono'

/** What clients may say of themselves. Every other source stands for something that the server itself began. */
const sourcesOfClients: readonly RunSource[] = ['API', 'CLI', 'GITHUB_ACTION', 'CLOUD_MODE', 'WEB_APP', 'LOCAL']

/** Where the request was made, as `X-Oz-Api-Source` says; anything else is the plain API. */
export function runSourceOf(c: Context): RunSource {
  const said = c.req.header('x-oz-api-source')
  return sourcesOfClients.find((source) => source === said) ?? 'API'
}
