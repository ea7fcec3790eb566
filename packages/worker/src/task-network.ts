import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { rootCertificates } from 'node:tls'
import { proxySecrets } from '@openoz/machine'

/**
 * The way to the network that tasks take over from the worker: its proxies, and the authorities that it trusts. Certificates are copied into
 * each task's own folder, because a task may not be able to read the operator's file.
 */
export interface TaskNetwork {
  proxies: Record<string, string>
  /** Passwords of proxies. */
  secrets: string[]
  /** Texts of PEM files; undefined where the worker trusts nobody but the usual ones. */
  authorities?: {
    /** What comes on top: `OZ_CA_FILE` and `NODE_EXTRA_CA_CERTS` add to the usual ones. */
    extra: string
    /** With the usual ones, for git, whose setting takes their place. */
    all: string
  }
}

const proxyNames = ['https_proxy', 'http_proxy', 'no_proxy', 'all_proxy']
const authorityNames = ['OZ_CA_FILE', 'NODE_EXTRA_CA_CERTS']
/** Where distributions keep what programs that use OpenSSL or GnuTLS trust. */
const systemFiles = ['/etc/ssl/certs/ca-certificates.crt', '/etc/pki/tls/certs/ca-bundle.crt', '/etc/ssl/cert.pem']

export const authorityFiles = { extra: 'authorities.pem', all: 'git-authorities.pem' }

/** Files that cannot be read are left out: the worker's own connection says so first. */
export function readTaskNetwork(env: NodeJS.ProcessEnv): TaskNetwork {
  const names = proxyNames.flatMap((name) => [name, name.toUpperCase()])
  const proxies = Object.fromEntries(names.flatMap((name) => (env[name] ? [[name, env[name]]] : [])))
  const files = [...new Set(authorityNames.flatMap((name) => env[name] || []))]
  const extra = files.flatMap((file) => readText(file) ?? []).join('\n')
  const network = { proxies, secrets: proxySecrets(env) }
  if (extra === '') return network
  const own = env.GIT_SSL_CAINFO ? readText(env.GIT_SSL_CAINFO) : undefined
  const usual = own ?? systemFiles.map(readText).find((text) => text !== undefined) ?? rootCertificates.join('\n')
  return { ...network, authorities: { extra, all: `${usual}\n${extra}` } }
}

/** For a task whose folder holds `authorityFiles`. */
export function networkVariables({ proxies, authorities }: TaskNetwork, folder: string): Record<string, string> {
  if (!authorities) return proxies
  const extra = join(folder, authorityFiles.extra)
  return { ...proxies, OZ_CA_FILE: extra, NODE_EXTRA_CA_CERTS: extra, GIT_SSL_CAINFO: join(folder, authorityFiles.all) }
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}
