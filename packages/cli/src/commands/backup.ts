import { resolve } from 'node:path'
import { type BackupSummary, writeBackup } from '@openoz/server'
import type { Command } from 'commander'
import { addInstallationFlags, type InstallationFlags, installationOptions } from '../backup/installation-flags.ts'
import { dataSize, showTransfer, untilStopped } from '../backup/transfer.ts'
import { type CommandContext, run, withExamples } from '../command-context.ts'
import { createLogger } from '../log.ts'
import { printJson } from '../output.ts'

export function registerBackup(program: Command): void {
  const command = program
    .command('backup')
    .argument('<file>', 'where to; nothing is replaced')
    .description(
      'write everything that the control plane keeps into one encrypted file, while its servers run or not; the master key is not in it',
    )
  addInstallationFlags(command, 'master key that the file is encrypted under').action(
    run<InstallationFlags>((context, { args, options }) => backup(context, args[0] ?? '', options)),
  )
  withExamples(command, [
    'oz backup /backup/openoz-2026-05-01.ozb',
    'DATABASE_URL=postgres://oz@db/oz OZ_MASTER_KEY_FILE=/etc/openoz/master.key oz backup openoz.ozb',
    'oz backup openoz.ozb --output-format json | jq .bytes',
  ])
}

async function backup(context: CommandContext, file: string, flags: InstallationFlags): Promise<number> {
  const { options: globals, output, env, progress } = context
  const options = installationOptions(flags, globals, env)
  const log = createLogger({ name: 'oz', level: globals.debug ? 'debug' : 'warn', env })
  progress.waitFor('the database')
  return untilStopped(output, async (signal) => {
    const summary = await writeBackup(options, resolve(file), { log, signal, onProgress: showTransfer(output) })
    if (output.isJson) printJson(output, toJson(summary))
    else {
      const { runs = 0, session_events: events = 0 } = summary.tables
      output.line(`Backed up ${runs} runs with ${events} events to ${summary.file} (${dataSize(summary.bytes)}).`)
      output.note(`Keep ${options.masterKeyFile ?? 'master.key'} elsewhere: without it nobody can read the backup.`)
    }
    return 0
  })
}

function toJson({ file, bytes, madeAt, schema, tables }: BackupSummary) {
  return { type: 'backup', file, bytes, made_at: madeAt, schema_version: schema, tables }
}
