import { readServerOptions, type ServerOptions, serverFlags } from '@openoz/server'
import { type Command, Option } from 'commander'
import type { GlobalOptions } from './global-options.ts'

type ServerOptionName = keyof typeof serverFlags
type Flag = (typeof serverFlags)[ServerOptionName]

/** One option per flag of the server's table, so that neither can have what the other lacks. */
export function addServerFlags(command: Command): Command {
  for (const [, { flag, env, value, default: fallback, description }] of flagEntries()) {
    const variable = env === null ? '' : `${env}; `
    command.addOption(new Option(`${flag} <${value}>`, `${description} (${variable}default: ${fallback})`))
  }
  return command
}

/** Only what was given: variables and defaults are the server's business. */
export function serverOptions(
  options: Record<string, unknown>,
  globals: GlobalOptions,
  env: NodeJS.ProcessEnv,
): ServerOptions {
  const given: Partial<Record<ServerOptionName, string>> = {}
  for (const [name, { flag }] of flagEntries()) {
    const value = options[new Option(`${flag} <value>`).attributeName()]
    if (typeof value === 'string') given[name] = value
  }
  if (globals.debug && given.logLevel === undefined) given.logLevel = 'debug'
  return readServerOptions(given, env)
}

function flagEntries(): [ServerOptionName, Flag & { flag: string; value: string }][] {
  return Object.entries(serverFlags).filter(([, { flag }]) => flag !== null) as [
    ServerOptionName,
    Flag & { flag: string; value: string },
  ][]
}
