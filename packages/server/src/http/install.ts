import { readFile } from 'node:fs/promises'
import { Readable } from 'node:stream'
import type { HttpBindings } from '@hono/node-server'
import { type AgentPlatform, AppError, agentPlatforms } from '@openoz/protocol'
import { type Context, Hono } from 'hono'
import type { AgentArchives } from '../agent-archives.ts'
import type { Ctx } from '../domain/context.ts'

/**
 * For machines that have nothing yet: a script, and the bundle that it installs. Both need no key, and neither needs the database; what a machine
 * may do is decided when it redeems its join token.
 */
export function installRoutes(ctx: Ctx, archives: AgentArchives) {
  return new Hono()
    .get('/install.sh', async (c) => {
      const script = await readFile(new URL('./install.sh', import.meta.url), 'utf8')
      const server = shellQuoted(addressFor(ctx, c))
      return c.body(
        script.replace("'@SERVER@'", () => server),
        200,
        {
          'content-type': 'text/x-shellscript; charset=utf-8',
          // It names the address that it was asked for at.
          'cache-control': 'no-store',
        },
      )
    })
    .get('/install/:file', async (c) => {
      const platform = byFile.get(c.req.param('file'))
      if (!platform) throw new AppError('route_not_found', { method: 'GET', path: c.req.path.slice(0, 200) })
      const archive = await findArchive(ctx, archives, platform)
      const etag = `"${archive.hash}"`
      if (c.req.header('if-none-match') === etag) return c.body(null, 304, { etag })
      return new Response(Readable.toWeb(archive.open()) as ReadableStream, {
        headers: { 'content-type': 'application/gzip', 'content-length': `${archive.sizeBytes}`, etag },
      })
    })
}

/** Where it was looked for is for the log: anybody may ask. */
async function findArchive(ctx: Pick<Ctx, 'log'>, archives: AgentArchives, platform: AgentPlatform) {
  try {
    return await archives.find(platform)
  } catch (error) {
    if (!(error instanceof AppError)) throw error
    ctx.log.warn({ error, platform }, 'a machine cannot be installed')
    throw new AppError(
      'agent_bundle_missing',
      { platform, places: 'the control plane’s own machine' },
      { cause: error },
    )
  }
}

const byFile: ReadonlyMap<string, AgentPlatform> = new Map(
  agentPlatforms.map((platform) => [`agent-${platform.replace('/', '-')}.tar.gz`, platform]),
)

/**
 * Where this client reaches us: the public address where there is one, else what it has dialled. Throws `public_address_unknown` when a proxy is between
 * that does not say how it was asked: a script that names `http` where it was fetched by `https` would send tokens, programs and keys in the clear.
 */
function addressFor(ctx: Pick<Ctx, 'config' | 'publicUrl' | 'log'>, c: Context): string {
  if (ctx.config.publicUrl !== null) return ctx.config.publicUrl
  const { incoming } = c.env as HttpBindings
  const scheme = ctx.config.proxies.clientScheme(incoming, ctx.config.tls === null ? 'http' : 'https')
  if (scheme === undefined) {
    ctx.log.warn('install.sh was asked for through a proxy: set --public-url, or --trusted-proxy and X-Forwarded-Proto')
    throw new AppError('public_address_unknown')
  }
  const host = c.req.header('host') ?? ''
  // What goes into a script that is run as root is a host and a port, and nothing else.
  const isHost = /^([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?$/i.test(host)
  return isHost ? `${scheme}://${host}` : ctx.publicUrl
}

function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}
