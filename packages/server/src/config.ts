import { homedir } from 'node:os'
import { join, resolve, win32 } from 'node:path'
import { AppError, parseDuration } from '@openoz/protocol'
import { type Proxies, readProxies } from './http/client-address.ts'
import { type LeaseTimes, leaseFlags, readLeaseTimes } from './lease-times.ts'

/**
 * What the control plane can be told. One table: the CLI makes flags and help from it, `docs/configuration.md` is checked against it.
 * Flags come before variables, variables before defaults.
 */
export interface ServerFlag {
  flag: string | null
  env: string | null
  /** Placeholder in help, absent for switches. */
  value?: string
  default: string
  description: string
}

export const serverFlags = {
  listen: {
    flag: '--listen',
    env: 'OZ_LISTEN',
    value: 'HOST:PORT',
    default: '127.0.0.1:4747',
    description: 'Address to listen on; port 0 picks a free one.',
  },
  dataDir: {
    flag: '--data-dir',
    env: 'OZ_DATA_DIR',
    value: 'DIR',
    default:
      '$XDG_DATA_HOME/openoz or ~/.local/share/openoz; as root /var/lib/openoz; on Windows %LOCALAPPDATA%\\openoz\\data',
    description: 'Folder of the database and the keys.',
  },
  databaseUrl: {
    flag: '--database-url',
    env: 'DATABASE_URL',
    value: 'URL',
    default: 'the embedded PostgreSQL',
    description: 'Use this PostgreSQL (15 or newer) instead of the embedded one.',
  },
  publicUrl: {
    flag: '--public-url',
    env: 'OZ_PUBLIC_URL',
    value: 'URL',
    default: 'from the listen address',
    description: 'Address that links and workers use.',
  },
  tlsCert: {
    flag: '--tls-cert',
    env: 'OZ_TLS_CERT',
    value: 'FILE',
    default: 'none',
    description: 'Certificate chain (PEM).',
  },
  tlsKey: { flag: '--tls-key', env: 'OZ_TLS_KEY', value: 'FILE', default: 'none', description: 'Private key (PEM).' },
  trustedProxy: {
    flag: '--trusted-proxy',
    env: 'OZ_TRUSTED_PROXY',
    value: 'CIDR',
    default: 'none',
    description: 'Believe X-Forwarded-For and X-Forwarded-Proto from these networks (comma-separated).',
  },
  metricsListen: {
    flag: '--metrics-listen',
    env: 'OZ_METRICS_LISTEN',
    value: 'HOST:PORT',
    default: 'the listen address',
    description: 'Serve /metrics on an address of its own instead.',
  },
  logLevel: {
    flag: '--log-level',
    env: 'OZ_LOG_LEVEL',
    value: 'LEVEL',
    default: 'info',
    description: 'debug, info, warn or error.',
  },
  masterKeyFile: {
    flag: null,
    env: 'OZ_MASTER_KEY_FILE',
    value: 'FILE',
    default: '<data-dir>/master.key',
    description: 'Key under which secrets are encrypted; 32 bytes as base64, mode 0600.',
  },
  bootstrapApiKey: {
    flag: null,
    env: 'OZ_BOOTSTRAP_API_KEY',
    value: 'KEY',
    default: 'a generated one in <data-dir>/admin-api-key',
    description: 'The first API key, for automation; begins with wk-.',
  },
  defaultModel: {
    flag: null,
    env: 'OZ_DEFAULT_MODEL',
    value: 'PROVIDER/MODEL',
    default: 'a preference per provider',
    description: 'Model of runs that name none.',
  },
  providersFile: {
    flag: null,
    env: 'OZ_PROVIDERS_FILE',
    value: 'FILE',
    default: 'none',
    description: 'Model providers under names of your own (JSON).',
  },
  pricesFile: {
    flag: null,
    env: 'OZ_PRICES_FILE',
    value: 'FILE',
    default: 'list prices',
    description: 'What models cost, before the built-in list prices (JSON).',
  },
  gatewayUrl: {
    flag: null,
    env: 'OZ_GATEWAY_URL',
    value: 'URL',
    default: 'the control plane itself',
    description: 'Address that agents call models at: that of `oz server --role gateway`.',
  },
  ...leaseFlags,
  llmRetryFor: {
    flag: null,
    env: 'OZ_LLM_RETRY_FOR',
    value: 'DURATION',
    default: '10m',
    description: 'How long an agent keeps trying an overloaded or unreachable model.',
  },
  llmIdleTimeout: {
    flag: null,
    env: 'OZ_LLM_IDLE_TIMEOUT',
    value: 'DURATION',
    default: '120s',
    description: 'A model stream without a byte for this long counts as cut.',
  },
  agentMaxSteps: {
    flag: null,
    env: 'OZ_AGENT_MAX_STEPS',
    value: 'N',
    default: '200',
    description: 'Model calls that one turn may take.',
  },
  agentMaxOutputTokens: {
    flag: null,
    env: 'OZ_AGENT_MAX_OUTPUT_TOKENS',
    value: 'N',
    default: '16384',
    description: 'Tokens that one model call may answer.',
  },
  agentMaxTurnOutputTokens: {
    flag: null,
    env: 'OZ_AGENT_MAX_TURN_OUTPUT_TOKENS',
    value: 'N',
    default: '2000000',
    description: 'Tokens that all model calls of one turn may answer together.',
  },
  agentMaxTime: {
    flag: null,
    env: 'OZ_AGENT_MAX_TIME',
    value: 'DURATION',
    default: '24h',
    description: 'How long one turn of the agent may take.',
  },
  agentWebFetch: {
    flag: null,
    env: 'OZ_AGENT_WEB_FETCH',
    value: 'on|off',
    default: 'off',
    description: 'Whether the agent has a tool that fetches web pages.',
  },
  agentOutputMaxBytes: {
    flag: null,
    env: 'OZ_AGENT_OUTPUT_MAX_BYTES',
    value: 'BYTES',
    default: '268435456',
    description: 'How much of one command’s output is kept whole, in the database.',
  },
  setupCommandTimeout: {
    flag: null,
    env: 'OZ_SETUP_COMMAND_TIMEOUT',
    value: 'DURATION',
    default: '30m',
    description: 'Time limit of one setup command.',
  },
  commandTimeout: {
    flag: null,
    env: 'OZ_COMMAND_TIMEOUT',
    value: 'DURATION',
    default: '10m',
    description: 'Time limit of a command of the agent that names none.',
  },
  workspaceMaxBytes: {
    flag: null,
    env: 'OZ_WORKSPACE_MAX_BYTES',
    value: 'BYTES',
    default: '104857600',
    description: 'How much of a changed workspace is saved per repository.',
  },
  spoolMaxBytes: {
    flag: null,
    env: 'OZ_SPOOL_MAX_BYTES',
    value: 'BYTES',
    default: '268435456',
    description: 'How much an agent keeps on disk while the control plane is away.',
  },
} as const satisfies Record<string, ServerFlag>

export type ServerOptionName = keyof typeof serverFlags

export interface ServerOptions {
  listen: { host: string; port: number }
  metricsListen: { host: string; port: number } | null
  dataDir: string
  databaseUrl: string | null
  publicUrl: string | null
  tls: { certFile: string; keyFile: string } | null
  proxies: Proxies
  logLevel: 'debug' | 'info' | 'warn' | 'error'
  masterKeyFile: string | null
  bootstrapApiKey: string | null
  defaultModel: string | null
  providersFile: string | null
  pricesFile: string | null
  gatewayUrl: string | null
  lease: LeaseTimes
  agent: {
    llmRetryForMs: number
    llmIdleTimeoutMs: number
    maxSteps: number
    maxOutputTokens: number
    maxTurnOutputTokens: number
    maxTurnMs: number
    webFetch: boolean
    setupCommandTimeoutMs: number
    commandTimeoutMs: number
    workspaceMaxBytes: number
    spoolMaxBytes: number
    outputMaxBytes: number
  }
  /** Where model providers are found (`ANTHROPIC_API_KEY`, …). Never copied anywhere else. */
  env: Record<string, string | undefined>
}

/** Reads flags (by option name) and variables. Throws `option_invalid` naming the option. */
export function readServerOptions(
  flags: Partial<Record<ServerOptionName, string>>,
  env: Record<string, string | undefined>,
): ServerOptions {
  const text = (name: ServerOptionName): string | null => {
    const fromEnv = serverFlags[name].env
    const value = flags[name] ?? (fromEnv === null ? undefined : env[fromEnv])
    return value === undefined || value === '' ? null : value
  }
  const read = <T>(name: ServerOptionName, parse: (value: string) => T): T => {
    const value = text(name) ?? serverFlags[name].default
    try {
      return parse(value)
    } catch (error) {
      const option = flags[name] === undefined ? serverFlags[name].env : serverFlags[name].flag
      throw new AppError('option_invalid', { option: option ?? name, problem: (error as Error).message })
    }
  }

  const certFile = text('tlsCert')
  const keyFile = text('tlsKey')
  if ((certFile === null) !== (keyFile === null))
    throw new AppError('option_invalid', {
      option: '--tls-cert',
      problem: 'it needs --tls-key, and the other way round',
    })
  if (text('bootstrapApiKey') !== null && !/^wk-[\x21-\x7e]{16,}$/.test(text('bootstrapApiKey') ?? ''))
    throw new AppError('option_invalid', {
      option: 'OZ_BOOTSTRAP_API_KEY',
      problem: 'it must begin with wk- and have at least 16 characters after that, without spaces',
    })

  const lease = readLeaseTimes({
    duration: (name) => read(name, requireDuration),
    count: (name) => read(name, parseCount),
  })

  return {
    listen: read('listen', parseAddress),
    metricsListen: text('metricsListen') === null ? null : read('metricsListen', parseAddress),
    dataDir: resolve(text('dataDir') ?? defaultDataDir(env)),
    databaseUrl: text('databaseUrl'),
    publicUrl: text('publicUrl') === null ? null : read('publicUrl', parsePublicUrl),
    tls: certFile === null || keyFile === null ? null : { certFile, keyFile },
    proxies: read('trustedProxy', (value) => readProxies(text('trustedProxy') === null ? null : value)),
    logLevel: read('logLevel', (value) => {
      if (value !== 'debug' && value !== 'info' && value !== 'warn' && value !== 'error')
        throw new Error('must be debug, info, warn or error')
      return value
    }),
    masterKeyFile: text('masterKeyFile'),
    bootstrapApiKey: text('bootstrapApiKey'),
    defaultModel: text('defaultModel'),
    providersFile: text('providersFile'),
    pricesFile: text('pricesFile'),
    gatewayUrl: text('gatewayUrl') === null ? null : read('gatewayUrl', parsePublicUrl),
    lease,
    agent: {
      llmRetryForMs: read('llmRetryFor', requireDuration),
      llmIdleTimeoutMs: read('llmIdleTimeout', requireDuration),
      maxSteps: read('agentMaxSteps', parseCount),
      maxOutputTokens: read('agentMaxOutputTokens', parseCount),
      maxTurnOutputTokens: read('agentMaxTurnOutputTokens', parseCount),
      maxTurnMs: read('agentMaxTime', requireDuration),
      webFetch: read('agentWebFetch', parseSwitch),
      setupCommandTimeoutMs: read('setupCommandTimeout', requireDuration),
      commandTimeoutMs: read('commandTimeout', requireDuration),
      workspaceMaxBytes: read('workspaceMaxBytes', parseCount),
      spoolMaxBytes: read('spoolMaxBytes', parseCount),
      outputMaxBytes: read('agentOutputMaxBytes', parseCount),
    },
    env,
  }
}

export function defaultDataDir(env: Record<string, string | undefined>, platform = process.platform): string {
  if (platform === 'win32' && !env.XDG_DATA_HOME) {
    return win32.join(env.LOCALAPPDATA || win32.join(homedir(), 'AppData', 'Local'), 'openoz', 'data')
  }
  // Not `userInfo()`: in a container the user may have no entry anywhere.
  if (process.getuid?.() === 0) return '/var/lib/openoz'
  return join(env.XDG_DATA_HOME || join(env.HOME || homedir(), '.local', 'share'), 'openoz')
}

function parseAddress(value: string): { host: string; port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(value)
  const port = Number(match?.[3])
  if (!match || port > 65_535) throw new Error(`"${value}" is not HOST:PORT`)
  return { host: match[1] ?? (match[2] || '0.0.0.0'), port }
}

function parsePublicUrl(value: string): string {
  const url = URL.canParse(value) ? new URL(value) : null
  if (!url || !['http:', 'https:'].includes(url.protocol)) throw new Error(`"${value}" is not an http or https address`)
  return value.replace(/\/+$/, '')
}

function requireDuration(value: string): number {
  const ms = parseDuration(value)
  if (ms === undefined) throw new Error(`"${value}" is not a duration such as 45m, 10s or 1h 30m`)
  return ms
}

function parseSwitch(value: string): boolean {
  if (value !== 'on' && value !== 'off') throw new Error(`"${value}" is neither on nor off`)
  return value === 'on'
}

function parseCount(value: string): number {
  if (!/^\d{1,15}$/.test(value) || Number(value) === 0) throw new Error(`"${value}" is not a positive whole number`)
  return Number(value)
}
