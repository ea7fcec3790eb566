import { text as readAll } from 'node:stream/consumers'
import { AppError } from '@openoz/protocol'
import type { Command } from 'commander'
import { run, withExamples } from '../command-context.ts'
import { findLogin, openConnection } from '../connection.ts'
import { printJson } from '../output.ts'
import { removeSavedLogin, savedLoginFile, saveLogin } from '../saved-login.ts'

export function registerLogin(program: Command): void {
  const command = program
    .command('login')
    .description('check address and key of a control plane, and save them for later commands')
    .option('--stdin', 'read the key from standard input, which other users of the machine cannot see')
    .action(
      run<{ stdin?: boolean }>(async ({ options, output, env, progress }, { options: { stdin } }) => {
        const piped = stdin ? (await readAll(process.stdin)).trim() : undefined
        const { serverUrl, apiKey } = await findLogin({ ...options, apiKey: piped ?? options.apiKey }, env)
        if (apiKey === undefined)
          throw new AppError('usage', { problem: 'A key is needed: --stdin, --api-key or OZ_API_KEY.' })
        await using connection = openConnection({ serverUrl, apiKey, env })
        progress.waitFor(connection.serverUrl)
        const me = await connection.client.whoami()
        await saveLogin({ server_url: connection.serverUrl, api_key: apiKey }, env)
        if (output.isJson) printJson(output, { server_url: connection.serverUrl, ...me })
        else output.line(`Logged in to ${connection.serverUrl} as ${me.display_name}. Saved in ${savedLoginFile(env)}.`)
        return 0
      }),
    )
  withExamples(command, [
    'oz login --server-url https://oz.example.com --stdin < key.txt',
    'OZ_API_KEY=wk-… oz login --server-url http://127.0.0.1:4747',
  ])
}

export function registerLogout(program: Command): void {
  const command = program
    .command('logout')
    .description('forget the saved login; the key itself stays valid')
    .action(
      run(async ({ output, env }) => {
        const removed = await removeSavedLogin(env)
        if (output.isJson) printJson(output, { removed })
        else output.line(removed ? `Removed ${savedLoginFile(env)}.` : 'No login was saved.')
        return 0
      }),
    )
  withExamples(command, ['oz logout'])
}
