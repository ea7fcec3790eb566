// Whether the control plane of this container can work: it reaches its database.
import { request as http } from 'node:http'
import { request as https } from 'node:https'

const port = (process.env.OZ_LISTEN ?? '').split(':').at(-1) || '4747'
const send = process.env.OZ_TLS_CERT ? https : http
const options = { host: '127.0.0.1', port, path: '/readyz', timeout: 4_000, rejectUnauthorized: false }
const end = (code) => process.exit(code)
send(options, ({ statusCode }) => end(statusCode === 200 ? 0 : 1))
  .on('timeout', () => end(1))
  .on('error', () => end(1))
  .end()
