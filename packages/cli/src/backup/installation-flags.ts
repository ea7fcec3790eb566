import { resolve } from 'node:path'
import { type ServerOptions, serverFlags } from '@openoz/server'
import { type Command, Option } from 'commander'
import type { GlobalOptions } from '../global-options.ts'
import { serverOptions } from '../server-flags.ts'

/** Where an installation is, as its servers are told: for programs that stand beside them. */
export interface InstallationFlags extends Record<string, unknown> {
  masterKeyFile?: string
}

export function addInstallationFlags(command: Command, masterKey: string): Command {
  for (const name of ['dataDir', 'databaseUrl'] as const) {
    const { flag, value, env, default: fallback, description } = serverFlags[name]
    command.addOption(new Option(`${flag} <${value}>`, `${description} (${env}; default: ${fallback})`))
  }
  const { env, default: fallback } = serverFlags.masterKeyFile
  return command.option('--master-key-file <FILE>', `${masterKey} (${env}; default: ${fallback})`)
}

export function installationOptions(
  flags: InstallationFlags,
  globals: GlobalOptions,
  env: NodeJS.ProcessEnv,
): ServerOptions {
  const options = serverOptions(flags, globals, env)
  return flags.masterKeyFile === undefined ? options : { ...options, masterKeyFile: resolve(flags.masterKeyFile) }
}
