import { type CloudEnvironment, type CloudEnvironmentConfig, repositoriesOf } from '@openoz/protocol'
import { type Output, printJson } from './output.ts'
import { oneLine } from './plain-text.ts'
import { type Column, printList, renderFields } from './table.ts'
import { ageText } from './time-text.ts'

export function printEnvironments(output: Output, environments: CloudEnvironment[], now: number): void {
  const columns: Column<CloudEnvironment>[] = [
    { title: 'id', value: (row) => row.uid },
    { title: 'name', value: (row) => row.config.name ?? '', cutTo: 12 },
    { title: 'repositories', value: (row) => repositories(row.config).join(', '), cutTo: 16, dropOrder: 2 },
    { title: 'image', value: (row) => row.config.docker_image ?? '', dropOrder: 4 },
    { title: 'scope', value: (row) => scopeText(row), dropOrder: 3 },
    {
      title: 'setup',
      value: (row) => (row.setup_failed ? 'failed' : ''),
      paint: (text) => output.colors.red(text),
      dropOrder: 5,
    },
    { title: 'updated', value: (row) => ageText(row.last_updated, now), dropOrder: 1 },
  ]
  const empty = 'No environments. Make one with `oz environment create`.'
  printList(output, { rows: environments, columns, empty })
}

export function printEnvironment(output: Output, environment: CloudEnvironment): void {
  if (output.isJson) {
    printJson(output, environment)
    return
  }
  const { uid, config, last_task_created: lastRun, last_editor: editor, creator } = environment
  const lines = (name: string, texts: string[] = []) =>
    texts.map((text, index): [string, string] => [index === 0 ? name : '', oneLine(text)])
  output.line(
    renderFields([
      ['ID', uid],
      ['Name', oneLine(config.name ?? '')],
      ['Description', oneLine(config.description ?? '')],
      ['Image', oneLine(config.docker_image ?? '')],
      ...lines('Repositories', repositories(config)),
      ...lines('Setup commands', config.setup_commands),
      ...lines(
        'Variables',
        Object.entries(config.variables ?? {}).map(([name, value]) => `${name}=${value}`),
      ),
      ['Scope', scopeText(environment)],
      ['Setup', environment.setup_failed ? output.colors.red('failed at its last run') : undefined],
      ['Last run', lastRun && `${lastRun.id} ${lastRun.state} ${oneLine(lastRun.title)}`],
      ['Creator', creator && oneLine(creator.display_name)],
      ['Updated', `${environment.last_updated}${editor ? ` by ${oneLine(editor.display_name)}` : ''}`],
    ]),
  )
}

const scopeText = ({ scope }: CloudEnvironment) => (scope.type === 'User' ? 'personal' : 'team')

/** Without passwords: what is printed is seen by whoever looks on. */
function repositories(config: CloudEnvironmentConfig): string[] {
  return repositoriesOf(config).map(({ url, ref, dir }) => {
    const where = `${url.replace(/:\/\/[^/@]*@/, '://')}${ref === undefined ? '' : ` at ${ref}`}`
    return dir === undefined ? where : `${where} in ${dir}`
  })
}
