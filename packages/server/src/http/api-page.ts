import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { Hono } from 'hono'

/**
 * `GET /docs`: the OpenAPI document as a page, for machines that reach nothing else. Everything that it needs comes from here, and its policy lets
 * the browser ask nobody else.
 */
const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>openoz API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<noscript>This page needs JavaScript. The document itself is <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
`

/** Without `validatorUrl: null` the library sends the document's address to its makers, where that is no loopback. */
const start = `SwaggerUIBundle({
  url: 'openapi.json',
  dom_id: '#page',
  deepLinking: true,
  validatorUrl: null,
})
`

/** The library sets styles on elements, which a policy calls inline. */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

const files = {
  'swagger-ui-bundle.js': 'text/javascript; charset=utf-8',
  'swagger-ui.css': 'text/css; charset=utf-8',
} as const

export function apiPageRoutes(): Hono {
  const routes = new Hono()
  const answer = (body: string | Buffer<ArrayBuffer>, contentType: string) =>
    new Response(body, {
      headers: {
        'content-type': contentType,
        'content-security-policy': policy,
        'x-content-type-options': 'nosniff',
        'referrer-policy': 'no-referrer',
        'cache-control': 'public, max-age=600',
      },
    })
  routes.get('/docs', () => answer(page, 'text/html; charset=utf-8'))
  routes.get('/docs/start.js', () => answer(start, 'text/javascript; charset=utf-8'))
  for (const [name, contentType] of Object.entries(files))
    routes.get(`/docs/${name}`, async () => answer(await readLibraryFile(name), contentType))
  return routes
}

/** The build puts them beside the programs. */
async function readLibraryFile(name: string): Promise<Buffer<ArrayBuffer>> {
  if (!import.meta.url.endsWith('.ts')) return readFile(new URL(`./api-page/${name}`, import.meta.url))
  return readFile(createRequire(import.meta.url).resolve(`swagger-ui-dist/${name}`))
}
