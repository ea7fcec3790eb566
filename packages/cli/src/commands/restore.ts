import { resolve } from 'node:path'
import { type RestoreSummary, restoreBackup } from '@openoz/server'
import type { Command } from 'commander'
import { addInstallationFlags, type InstallationFlags, installationOptions } from '../backup/installation-flags.ts'
import { showTransfer, untilStopped } from '../backup/transfer.ts'
import { type CommandContext, run, withExamples } from '../command-context.ts'
import { createLogger } from '../log.ts'
import { type Output, printJson } from '../output.ts'

interface RestoreFlags extends InstallationFlags {
  requeue?: boolean
}

export function registerRestore(program: Command): void {
  const command = program
    .command('restore')
    .argument('<file>', 'made by `oz backup`')
    .description(
      'put a backup into an empty database or a new data folder; runs that were at work when it was made end as ERROR, and can be continued with a follow-up',
    )
    .option(
      '--requeue',
      'let the runs that were at work go on by themselves: only where the machine of the backup is gone for good, since else both perform them',
    )
  addInstallationFlags(command, 'master key of the backup; the new data folder gets a copy').action(
    run<RestoreFlags>((context, { args, options }) => restore(context, args[0] ?? '', options)),
  )
  withExamples(command, [
    'oz restore openoz.ozb --master-key-file master.key --data-dir /var/lib/openoz',
    'DATABASE_URL=postgres://oz@db/new OZ_MASTER_KEY_FILE=/etc/openoz/master.key oz restore openoz.ozb',
    'oz restore openoz.ozb --master-key-file master.key --requeue',
  ])
}

async function restore(context: CommandContext, file: string, flags: RestoreFlags): Promise<number> {
  const { options: globals, output, env } = context
  const options = installationOptions(flags, globals, env)
  const log = createLogger({ name: 'oz', level: globals.debug ? 'debug' : 'warn', env })
  // Where a variable names the key, the server is told of it in the same way.
  const keepKey = flags.masterKeyFile !== undefined && !env.OZ_MASTER_KEY_FILE
  return untilStopped(output, async (signal) => {
    const wishes = { requeue: flags.requeue ?? false, keepKey }
    const summary = await restoreBackup(options, resolve(file), wishes, {
      log,
      signal,
      onProgress: showTransfer(output),
    })
    if (output.isJson) printJson(output, toJson(summary))
    else tell(output, summary)
    return 0
  })
}

function tell(output: Output, { file, target, madeAt, tables, skippedTables, runs }: RestoreSummary): void {
  const { runs: all = 0, session_events: events = 0 } = tables
  output.line(`Restored ${all} runs with ${events} events from ${file}, made at ${madeAt}, into ${target}.`)
  if (runs.ended > 0)
    output.note(`${runs.ended} that were at work have ended as ERROR: \`oz run list --state error\`, then follow up.`)
  if (runs.queued > 0) output.note(`${runs.queued} wait in the queue and begin when a worker connects.`)
  if (skippedTables.length > 0) output.note(`Not of openoz, and left out: ${skippedTables.join(', ')}.`)
  output.note('All API keys are in it. The file admin-api-key is not: the next start makes another first key.')
}

function toJson({ file, target, madeAt, schema, tables, skippedTables, runs }: RestoreSummary) {
  return {
    type: 'restore',
    file,
    target,
    made_at: madeAt,
    schema_version: schema.to,
    migrated_from: schema.from,
    tables,
    skipped_tables: skippedTables,
    runs,
  }
}
