import { lookup } from 'node:dns'
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { isIP, type LookupFunction } from 'node:net'
import type { Readable } from 'node:stream'
import { createBrotliDecompress, createUnzip } from 'node:zlib'
import { proxyFor } from '@openoz/machine'
import { isPublicAddress } from './public-address.ts'

/**
 * One page of the web, for an agent that strangers may have talked into asking for it. So a request goes to public addresses only, and what is
 * checked is the address that the connection is made to: a name may resolve to something else a moment later. Redirects are followed here, since each
 * of them is a new request. Through a proxy it is the proxy that resolves names, and its operator who decides what it reaches.
 */
export interface WebPage {
  /** After redirects. */
  url: string
  status: number
  contentType: string
  body: Buffer
  isCut: boolean
}

interface PageOptions {
  env: NodeJS.ProcessEnv
  signal: AbortSignal
  maxBytes: number
  timeoutMs: number
  mayConnect?: (address: string) => boolean
}

const maxRedirects = 10

/** Rejects, in words for the model, when there is no answer or it may not be asked for; with the signal's reason when that aborts. */
export async function fetchPage(address: string, options: PageOptions): Promise<WebPage> {
  const timeout = AbortSignal.timeout(options.timeoutMs)
  const signal = AbortSignal.any([options.signal, timeout])
  let url = parseAddress(address)
  try {
    for (let hop = 0; hop <= maxRedirects; hop++) {
      const response = await get(url, { ...options, signal })
      const { statusCode: status = 0, headers } = response
      const isRedirect = [301, 302, 303, 307, 308].includes(status) && headers.location !== undefined
      if (isRedirect) {
        response.destroy()
        url = parseAddress(headers.location ?? '', url)
        continue
      }
      const { body, isCut } = await readBody(response, options.maxBytes)
      return { url: url.href, status, contentType: headers['content-type'] ?? '', body, isCut }
    }
    throw new Error(`${address} redirects more than ${maxRedirects} times.`)
  } catch (error) {
    options.signal.throwIfAborted()
    if (timeout.aborted) throw new Error(`${url.href} did not answer completely within ${options.timeoutMs} ms.`)
    throw error
  }
}

function parseAddress(text: string, base?: URL): URL {
  if (!URL.canParse(text, base?.href)) throw new Error(`${text} is no address of the web.`)
  const url = new URL(text, base)
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    throw new Error(`${url.protocol}//… cannot be fetched; only http and https addresses can.`)
  }
  if (url.username !== '' || url.password !== '') throw new Error('An address with a user or password is not fetched.')
  return url
}

async function get(url: URL, { env, signal, mayConnect = isPublicAddress }: PageOptions): Promise<IncomingMessage> {
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const refused = () =>
    new Error(`${url.host} is not on the public internet, and is not fetched. If it is yours to use, use a command.`)
  if (isIP(host) !== 0 && !mayConnect(host)) throw refused()
  const proxy = proxyFor(url, env)?.href
  const guarded: LookupFunction = (name, options, done) =>
    lookup(name, { ...options, all: true }, (error, addresses) => {
      if (error) return done(error, '')
      const allowed = addresses.filter((one) => mayConnect(one.address))
      const [first] = allowed
      if (!first) return done(refused(), '')
      if (options.all) done(null, allowed)
      else done(null, first.address, first.family)
    })
  const [Agent, request] = url.protocol === 'https:' ? [HttpsAgent, httpsRequest] : [HttpAgent, httpRequest]
  const agent = new Agent(proxy === undefined ? {} : { proxyEnv: { HTTP_PROXY: proxy, HTTPS_PROXY: proxy } })
  return new Promise((resolve, reject) => {
    const asked = request(url, {
      agent,
      signal,
      lookup: proxy === undefined ? guarded : undefined,
      headers: {
        accept: 'text/markdown, text/html;q=0.9, text/plain;q=0.9, application/json;q=0.8, */*;q=0.1',
        'accept-encoding': 'gzip, deflate, br',
        'user-agent': 'openoz',
        connection: 'close',
      },
    })
    asked.once('response', resolve)
    asked.once('error', (error) => reject(failure(url, error, proxy !== undefined)))
    asked.end()
  })
}

function failure(url: URL, error: Error, isProxied: boolean): Error {
  if (!('code' in error)) return error
  const through = isProxied ? ' through the proxy' : ''
  return new Error(`${url.host} could not be reached${through}: ${error.message || error.code}.`, { cause: error })
}

/** Counted after it was unpacked: a few bytes can be packed gigabytes. */
async function readBody(response: IncomingMessage, maxBytes: number): Promise<{ body: Buffer; isCut: boolean }> {
  const chunks: Buffer[] = []
  let length = 0
  try {
    for await (const chunk of unpacked(response) as AsyncIterable<Buffer>) {
      length += chunk.length
      chunks.push(chunk)
      if (length > maxBytes) break
    }
  } finally {
    response.destroy()
  }
  return { body: Buffer.concat(chunks).subarray(0, maxBytes), isCut: length > maxBytes }
}

function unpacked(response: IncomingMessage): Readable {
  const unpack = {
    gzip: createUnzip,
    'x-gzip': createUnzip,
    deflate: createUnzip,
    br: createBrotliDecompress,
  }[response.headers['content-encoding']?.trim().toLowerCase() ?? '']
  if (!unpack) return response
  const stream = unpack()
  response.once('error', (error) => stream.destroy(error))
  return response.pipe(stream)
}
