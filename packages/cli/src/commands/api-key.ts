import { type ApiKey, type ApiKeyScope, AppError, parseDuration } from '@openoz/protocol'
import { type Command, Option } from 'commander'
import { run, runConnected, withExamples, withJq } from '../command-context.ts'
import { confirm } from '../confirm.ts'
import { connect } from '../connection.ts'
import { printJson } from '../output.ts'
import { type Column, printList, renderFields } from '../table.ts'
import { ageText } from '../time-text.ts'

const scopes = ['user', 'team', 'worker'] as const satisfies readonly ApiKeyScope[]

/** How each order compares; what never happened comes last. */
const sortKeys = {
  name: (key: ApiKey) => key.name,
  'created-at': (key: ApiKey) => key.created_at,
  'last-used-at': (key: ApiKey) => key.last_used_at ?? '￿',
  'expires-at': (key: ApiKey) => key.expires_at ?? '￿',
  scope: (key: ApiKey) => key.scope,
} as const

export function registerApiKey(program: Command): void {
  const group = program.command('api-key').description('list, create and expire API keys')
  registerList(group)
  registerCreate(group)
  registerExpire(group)
}

function registerList(group: Command): void {
  const list = group
    .command('list')
    .description('list the keys that you may see; none of them can be shown again')
    .addOption(new Option('--sort-by <field>').choices(Object.keys(sortKeys)).default('created-at'))
    .addOption(new Option('--sort-order <order>').choices(['asc', 'desc']).default('desc'))
    .action(
      runConnected<{ sortBy: keyof typeof sortKeys; sortOrder: 'asc' | 'desc' }>(
        async ({ connection, output }, { options }) => {
          const { api_keys } = await connection.client.apiKeys.list()
          const keyOf = sortKeys[options.sortBy]
          const direction = options.sortOrder === 'asc' ? 1 : -1
          const rows = api_keys.toSorted((a, b) => direction * keyOf(a).localeCompare(keyOf(b)))
          printList(output, { rows, columns: columns(Date.now()), empty: 'No API keys.' })
          return 0
        },
      ),
    )
  withExamples(withJq(list), ['oz api-key list', 'oz api-key list --sort-by expires-at --sort-order asc'])
}

interface CreateOptions {
  scope: ApiKeyScope
  workerId?: string
  expiresIn?: string
  expiresAt?: string
  expiration: boolean
}

function registerCreate(group: Command): void {
  const create = group
    .command('create')
    .argument('<name>', 'to recognise it by')
    .description('make a key and print it, this once')
    .addOption(
      new Option('--scope <scope>', 'user: your rights; team: the team’s; worker: connect as a worker')
        .choices(scopes)
        .default('user'),
    )
    .option('--worker-id <id>', 'the one worker that a worker key may connect as (needed with --scope worker)')
    .option('--expires-in <duration>', 'such as 30d or 12h')
    .option('--expires-at <time>', 'RFC 3339')
    .option('--no-expiration', 'valid until it is expired by hand')
    .action(
      runConnected<CreateOptions>(async ({ connection, output }, { args, options }) => {
        const created = await connection.client.apiKeys.create({
          name: args[0] ?? '',
          scope: options.scope,
          worker_id: options.workerId,
          expires_at: expiryOf(options),
        })
        if (output.isJson) printJson(output, created)
        else if (output.format === 'text') output.line(created.raw_api_key)
        else {
          output.line(
            renderFields([
              ['Key', created.raw_api_key],
              ['Name', created.api_key.name],
              ['Scope', created.api_key.scope],
              ['Worker', created.api_key.worker_id ?? undefined],
              ['Expires', created.api_key.expires_at ?? 'never'],
            ]),
          )
          output.note('Keep the key now: it is not shown again.')
        }
        return 0
      }),
    )
  withExamples(withJq(create), [
    'oz api-key create ci --expires-in 90d',
    'oz api-key create build-machine --scope worker --worker-id build-1 --no-expiration',
  ])
}

/** Exactly one of the three: a key that never expires must be asked for. */
export function expiryOf(options: Pick<CreateOptions, 'expiresIn' | 'expiresAt' | 'expiration'>): string | undefined {
  const given = [options.expiresIn !== undefined, options.expiresAt !== undefined, !options.expiration]
  if (given.filter(Boolean).length !== 1) {
    throw new AppError('usage', { problem: 'Give exactly one of --expires-in, --expires-at and --no-expiration.' })
  }
  return options.expiresIn === undefined ? options.expiresAt : timeAfter(options.expiresIn)
}

function timeAfter(duration: string): string {
  // NaN, too, where the calendar of JavaScript ends.
  const time = new Date(Date.now() + (parseDuration(duration) ?? Number.NaN))
  if (!Number.isNaN(time.getTime())) return time.toISOString()
  const problem = `"${duration}" is not a duration such as 45m, 1h 30m or 30d`
  throw new AppError('flag_invalid', { option: '--expires-in', problem })
}

function registerExpire(group: Command): void {
  const expire = group
    .command('expire')
    .alias('delete')
    .argument('<name-or-uid>')
    .description('end a key: whoever uses it is refused from now on')
    .option('--force', 'do not ask')
    .action(
      run<{ force?: boolean }>(async (context, { args, options }) => {
        const key = args[0] ?? ''
        if (!options.force) await confirm(`Expire the API key ${key}?`)
        await using connection = await connect(context.options, context.env)
        context.progress.waitFor(connection.serverUrl)
        const { uid } = await connection.client.apiKeys.expire(key)
        if (context.output.isJson) printJson(context.output, { uid, expired: true })
        else context.output.line(`Expired ${key}.`)
        return 0
      }),
    )
  withExamples(withJq(expire), ['oz api-key expire ci', 'oz api-key expire ci --force'])
}

function columns(now: number): Column<ApiKey>[] {
  return [
    { title: 'name', value: (row) => row.name, cutTo: 12 },
    { title: 'key', value: (row) => `wk-**${row.key_suffix}` },
    { title: 'scope', value: (row) => (row.worker_id === null ? row.scope : `${row.scope} ${row.worker_id}`) },
    { title: 'expires', value: (row) => row.expires_at ?? 'never' },
    {
      title: 'last used',
      value: (row) => (row.last_used_at === null ? 'never' : ageText(row.last_used_at, now)),
      dropOrder: 1,
    },
    { title: 'created', value: (row) => ageText(row.created_at, now), dropOrder: 2 },
    { title: 'uid', value: (row) => row.uid, dropOrder: 3 },
  ]
}
