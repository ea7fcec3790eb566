import { startLink } from '../../packages/cli/src/chaos/link.ts'

/** The way to a database, which can be shut: then everybody who is on it is cut off, and nobody gets through. */
export interface DatabaseGate extends AsyncDisposable {
  /** The same database by this way. */
  url: string
  shut(): void
}

export async function openDatabaseGate(databaseUrl: string): Promise<DatabaseGate> {
  const url = new URL(databaseUrl.replace(/@[^/]+\//, '@127.0.0.1/'))
  const [, folder = '', port = ''] = /@([^:/]+):(\d+)\//.exec(databaseUrl) ?? []
  const link = await startLink(() => [{ path: `${decodeURIComponent(folder)}/.s.PGSQL.${port}` }])
  url.port = `${link.port}`
  return {
    url: url.href,
    shut: () => void link.begin('cut'),
    [Symbol.asyncDispose]: () => link[Symbol.asyncDispose](),
  }
}
