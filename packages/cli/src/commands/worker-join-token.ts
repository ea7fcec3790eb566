import { AppError, parseDuration } from '@openoz/protocol'
import type { Command } from 'commander'
import { runConnected, withExamples, withJq } from '../command-context.ts'
import { printJson } from '../output.ts'

interface JoinTokenOptions {
  workerId?: string
  expiresIn: string
}

export function registerJoinToken(group: Command): void {
  const command = group
    .command('join-token')
    .description('make a token with which one machine becomes a worker, and print it, this once')
    .option(
      '--worker-id <id>',
      'the only worker that may join with it (default: the machine’s name, or what it asks for)',
    )
    .option('--expires-in <duration>', 'from 1m to 1d', '1h')
    .action(
      runConnected<JoinTokenOptions>(async ({ connection, output }, { options }) => {
        const created = await connection.client.workers.createJoinToken({
          worker_id: options.workerId,
          expires_in_minutes: minutesOf(options.expiresIn),
        })
        if (output.isJson) printJson(output, created)
        else if (output.format === 'text') output.line(created.token)
        else {
          output.line(created.token)
          output.note(`Good for one machine, until ${created.expires_at}. There, as root or as a user:`)
          output.note(`  curl -fsS ${addressText(connection.serverUrl)}/install.sh | sh -s -- --join ${created.token}`)
          if (isLoopback(connection.serverUrl)) output.note('From another machine: with the address that it has there.')
        }
        return 0
      }),
    )
  withExamples(withJq(command), [
    'oz worker join-token',
    'oz worker join-token --worker-id build-1 --expires-in 10m --output-format json',
  ])
}

function minutesOf(duration: string): number {
  const minutes = Math.floor((parseDuration(duration) ?? 0) / 60_000)
  if (minutes >= 1 && minutes <= 24 * 60) return minutes
  throw new AppError('flag_invalid', { option: '--expires-in', problem: `"${duration}" is no duration from 1m to 1d` })
}

function isLoopback(serverUrl: string): boolean {
  return URL.canParse(serverUrl) && /^(localhost|127\..*|\[::1\])$/.test(new URL(serverUrl).hostname)
}

/** A socket is not dialled from another machine. */
function addressText(serverUrl: string): string {
  return /^https?:/.test(serverUrl) ? serverUrl.replace(/\/+$/, '') : 'https://ADDRESS-OF-THE-CONTROL-PLANE'
}
