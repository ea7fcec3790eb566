import { AppError, type ListEnvironmentsQuery } from '@openoz/protocol'
import { type Command, Option } from 'commander'
import { run, runConnected, withExamples, withJq } from '../command-context.ts'
import { confirm } from '../confirm.ts'
import { connect } from '../connection.ts'
import { changedConfig, type EnvironmentChanges, type EnvironmentFlags } from '../environment-config.ts'
import { printEnvironment, printEnvironments } from '../environment-lists.ts'
import { printJson } from '../output.ts'
import { sendOnce } from '../send-once.ts'

const exampleId = '0198c2f0-…'

export function registerEnvironment(program: Command): void {
  const group = program
    .command('environment')
    .alias('e')
    .description('what runs work in: repositories, setup commands, variables, an image')
  registerList(group)
  registerGet(group)
  registerCreate(group)
  registerUpdate(group)
  registerDelete(group)
}

const append = (value: string, previous: string[] = []) => [...previous, value]

function registerList(group: Command): void {
  const list = group
    .command('list')
    .description('list the environments of the team, and your personal ones')
    .addOption(
      new Option('--sort-by <field>').choices(['name', 'last-updated']).default('last-updated', 'last-updated'),
    )
    .action(
      runConnected<{ sortBy: string }>(async ({ connection, output }, { options }) => {
        const sort_by = options.sortBy.replace('-', '_') as ListEnvironmentsQuery['sort_by']
        const { environments } = await connection.client.environments.list({ sort_by })
        printEnvironments(output, environments, Date.now())
        return 0
      }),
    )
  withExamples(withJq(list), ['oz environment list', 'oz environment list --sort-by name --output-format json'])
}

function registerGet(group: Command): void {
  const get = group
    .command('get')
    .argument('<id>')
    .description('show one environment')
    .action(
      runConnected(async ({ connection, output }, { args }) => {
        printEnvironment(output, await connection.client.environments.get(args[0] ?? ''))
        return 0
      }),
    )
  withExamples(withJq(get), [`oz environment get ${exampleId}`])
}

function registerCreate(group: Command): void {
  const create = group
    .command('create')
    .description('store an environment, for runs to name by its id')
    .option('-n, --name <name>', 'to recognise it by')
    .option('--description <text>', 'at most 240 characters')
    .option('-d, --docker-image <image>', 'image of the task’s container; does not apply on the direct backend')
    .option('-r, --repo <repo>', 'owner/repo on GitHub, or the address of any repository; may be repeated', append)
    .option('-c, --setup-command <command>', 'run this before the agent starts; may be repeated', append)
    .option('--variable <name=value>', 'for setup commands and tools; no place for secrets; may be repeated', append)
    .addOption(new Option('--team', 'for everyone in the team (default)').conflicts('personal'))
    .addOption(new Option('--personal', 'for you alone'))
    .action(
      runConnected<EnvironmentFlags & { team?: boolean; personal?: boolean }>(
        async ({ connection, output }, { options }) => {
          const { team, personal, ...flags } = options
          if (Object.keys(flags).length === 0)
            throw new AppError('usage', { problem: 'Say what the environment consists of, such as --name or --repo.' })
          const isTeams = team ? true : personal ? false : undefined
          const request = { ...changedConfig({}, flags), ...(isTeams === undefined ? {} : { team: isTeams }) }
          const created = await sendOnce((once) => connection.client.environments.create(request, once))
          if (!output.isJson) output.line(`Created environment ${created.uid}.`)
          if (output.format !== 'text') printEnvironment(output, created)
          return 0
        },
      ),
    )
  withExamples(create, [
    'oz environment create --name shop --repo acme/shop --setup-command "cd shop && npm ci"',
    'oz environment create --name tools --repo https://git.example.com/tools.git --variable NODE_ENV=test --personal',
  ])
}

type UpdateOptions = EnvironmentChanges & {
  removeDescription?: boolean
  removeDockerImage?: boolean
  force?: boolean
}

function registerUpdate(group: Command): void {
  const update = group
    .command('update')
    .argument('<id>')
    .description('change an environment; runs that exist keep what they began with')
    .option('-n, --name <name>')
    .addOption(new Option('--description <text>', 'at most 240 characters').conflicts('removeDescription'))
    .option('--remove-description')
    .addOption(new Option('-d, --docker-image <image>').conflicts('removeDockerImage'))
    .option('--remove-docker-image')
    .option('-r, --repo <repo>', 'add this repository; may be repeated', append)
    .option('--remove-repo <repo>', 'may be repeated', append)
    .option('-c, --setup-command <command>', 'add this as the last one; may be repeated', append)
    .option('--remove-setup-command <command>', 'exactly as it is written there; may be repeated', append)
    .option('--variable <name=value>', 'set this variable; may be repeated', append)
    .option('--remove-variable <name>', 'may be repeated', append)
    .addOption(new Option('--force', 'taken for scripts that give it: nothing is asked').hideHelp())
    .action(
      runConnected<UpdateOptions>(async ({ connection, output }, { args, options }) => {
        const { force: _force, removeDescription, removeDockerImage, ...flags } = options
        const changes: EnvironmentChanges = {
          ...flags,
          ...(removeDescription ? { description: false } : {}),
          ...(removeDockerImage ? { dockerImage: false } : {}),
        }
        if (Object.keys(changes).length === 0)
          throw new AppError('usage', { problem: 'Say what shall be changed: no option was given.' })
        const id = args[0] ?? ''
        const { config } = await connection.client.environments.get(id)
        const updated = await connection.client.environments.update(id, changedConfig(config, changes))
        if (output.isJson) printEnvironment(output, updated)
        else output.line(`Updated environment ${updated.uid}.`)
        return 0
      }),
    )
  withExamples(update, [
    `oz environment update ${exampleId} --setup-command "cd shop && npm run build"`,
    `oz environment update ${exampleId} --remove-repo acme/old --repo acme/new --name new`,
  ])
}

function registerDelete(group: Command): void {
  const remove = group
    .command('delete')
    .argument('<id>')
    .description('delete an environment; runs that exist keep what they began with')
    .option('--force', 'do not ask')
    .action(
      run<{ force?: boolean }>(async (context, { args, options }) => {
        const id = args[0] ?? ''
        if (!options.force) await confirm(`Delete the environment ${id}?`)
        await using connection = await connect(context.options, context.env)
        context.progress.waitFor(connection.serverUrl)
        const deleted = await connection.client.environments.delete(id)
        if (context.output.isJson) printJson(context.output, deleted)
        else context.output.line(`Deleted environment ${deleted.uid}.`)
        return 0
      }),
    )
  withExamples(remove, [`oz environment delete ${exampleId}`, `oz environment delete ${exampleId} --force`])
}
