import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { AppError } from '@openoz/protocol'
import { dockerConfigFolder } from './docker-config.ts'

/** What an encrypted connection to an engine goes by; as `node:tls` takes it. */
export interface EngineTls {
  ca?: Buffer
  cert?: Buffer
  key?: Buffer
  /** false: whoever answers is taken for the engine. Node's default is true. */
  rejectUnauthorized?: boolean
}

/**
 * DOCKER_TLS_VERIFY (anything but empty) encrypts and verifies. DOCKER_CERT_PATH or DOCKER_TLS alone encrypt without verifying, as Docker's own
 * client libraries read them. undefined without any of them. Throws `option_invalid`.
 */
export function readTls(env: NodeJS.ProcessEnv): EngineTls | undefined {
  const rejectUnauthorized = Boolean(env.DOCKER_TLS_VERIFY)
  if (!rejectUnauthorized && !env.DOCKER_CERT_PATH && !env.DOCKER_TLS) return undefined
  const folder = env.DOCKER_CERT_PATH || dockerConfigFolder(env)
  const problem = (text: string) => new AppError('option_invalid', { option: 'DOCKER_CERT_PATH', problem: text })
  const files = readTlsFiles(folder, problem)
  if (env.DOCKER_CERT_PATH && Object.keys(files).length === 0)
    throw problem(`the folder ${folder} has neither ca.pem nor cert.pem and key.pem`)
  return { ...files, rejectUnauthorized }
}

/** `ca.pem`, `cert.pem` and `key.pem` of a folder, as far as they exist. A certificate and its key belong together. */
export function readTlsFiles(folder: string, problem: (text: string) => AppError): EngineTls {
  const read = (name: string) => readIfThere(join(folder, name), problem)
  const [ca, cert, key] = [read('ca.pem'), read('cert.pem'), read('key.pem')]
  if ((cert === undefined) !== (key === undefined))
    throw problem(`the folder ${folder} has only one of cert.pem and key.pem`)
  return { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) }
}

function readIfThere(file: string, problem: (text: string) => AppError): Buffer | undefined {
  try {
    return readFileSync(file)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw problem(`${file} cannot be read (${code})`)
  }
}
