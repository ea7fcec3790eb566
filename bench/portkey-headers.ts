/**
 * Loaded before Portkey's gateway. With the library that serves it here (@hono/node-server 1.19) it writes to headers of a fetched answer, which
 * are not to be changed, and every stream ends as status 500. A copy of the headers repairs that, for some microseconds of its milliseconds.
 */
const fetchAnswer = globalThis.fetch

globalThis.fetch = async (...request: Parameters<typeof fetch>) => {
  const response = await fetchAnswer(...request)
  return Object.defineProperty(response, 'headers', { value: new Headers(response.headers) })
}
