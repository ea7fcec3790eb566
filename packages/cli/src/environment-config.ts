import { AppError, type CloudEnvironmentConfig, repositoriesOf, type SourceRepo } from '@openoz/protocol'
import { repositoryUrl } from './repository-text.ts'

/** Flags of `oz environment create`; `update` adds what takes something away. */
export interface EnvironmentFlags {
  name?: string
  description?: string
  dockerImage?: string
  repo?: string[]
  setupCommand?: string[]
  variable?: string[]
}

export interface EnvironmentChanges extends Omit<EnvironmentFlags, 'description' | 'dockerImage'> {
  /** False: taken away. */
  description?: string | false
  dockerImage?: string | false
  removeRepo?: string[]
  removeSetupCommand?: string[]
  removeVariable?: string[]
}

/** What an environment consists of after the changes. Throws `flag_invalid` for a flag that makes no sense for it. */
export function changedConfig(before: CloudEnvironmentConfig, changes: EnvironmentChanges): CloudEnvironmentConfig {
  if (changes.name?.trim() === '') throw new AppError('flag_invalid', { option: '--name', problem: 'it is empty' })
  const { name, description, docker_image, variables, ...rest } = before
  const config: CloudEnvironmentConfig = {
    name: changes.name ?? name,
    description: changes.description === false ? undefined : (changes.description ?? description),
    docker_image: changes.dockerImage === false ? undefined : (changes.dockerImage ?? docker_image),
    ...rest,
    ...changedRepositories(before, changes),
    setup_commands: changedCommands(before.setup_commands ?? [], changes),
    variables: changedVariables(variables ?? {}, changes),
  }
  const isEmpty = (value: unknown) =>
    value === undefined || value === null || (typeof value === 'object' && Object.keys(value).length === 0)
  return Object.fromEntries(Object.entries(config).filter(([, value]) => !isEmpty(value)))
}

const gitHubForm = /^([\w.-]+)\/([\w.-]+)$/

/** `owner/repo` for GitHub as the reference keeps it, everything else by its address. One that is there already is not added again. */
function changedRepositories(
  { github_repos = [], source_repos = [] }: CloudEnvironmentConfig,
  { repo = [], removeRepo = [] }: EnvironmentChanges,
): Pick<CloudEnvironmentConfig, 'github_repos' | 'source_repos'> {
  for (const text of removeRepo) {
    const left = github_repos.filter(({ owner, repo }) => !isSame({ url: `${owner}/${repo}` }, text))
    const leftSources = source_repos.filter((source) => !isSame({ url: source.url }, text))
    if (left.length + leftSources.length === github_repos.length + source_repos.length)
      throw notThere('--remove-repo', text)
    github_repos = left
    source_repos = leftSources
  }
  for (const text of repo) {
    const source = { url: repositoryUrl(text) }
    const known = repositoriesOf({ github_repos, source_repos })
    if (known.some((one) => isSame(one, source.url))) continue
    const [, owner, name] = gitHubForm.exec(source.url) ?? []
    if (owner !== undefined && name !== undefined)
      github_repos = [...github_repos, { owner, repo: name.replace(/\.git$/, '') }]
    else source_repos = [...source_repos, source]
  }
  return { github_repos, source_repos }
}

/** As the agent sees it: one repository, however it is written. */
function isSame(source: SourceRepo, text: string): boolean {
  return repositoriesOf({ source_repos: [source, { url: repositoryUrl(text) }] }).length === 1
}

function changedCommands(
  before: string[],
  { setupCommand = [], removeSetupCommand = [] }: EnvironmentChanges,
): string[] {
  for (const text of removeSetupCommand) {
    if (!before.includes(text)) throw notThere('--remove-setup-command', text)
  }
  return [...before.filter((command) => !removeSetupCommand.includes(command)), ...setupCommand]
}

function changedVariables(
  before: Record<string, string>,
  { variable = [], removeVariable = [] }: EnvironmentChanges,
): Record<string, string> {
  for (const name of removeVariable) {
    if (!Object.hasOwn(before, name)) throw notThere('--remove-variable', name)
  }
  const kept = Object.entries(before).filter(([name]) => !removeVariable.includes(name))
  return Object.fromEntries([...kept, ...variable.map(variableOf)])
}

function variableOf(text: string): [string, string] {
  const equals = text.indexOf('=')
  const name = text.slice(0, equals)
  if (equals < 0 || !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
    throw new AppError('flag_invalid', { option: '--variable', problem: `"${text}" is not NAME=VALUE` })
  return [name, text.slice(equals + 1)]
}

function notThere(option: string, text: string): AppError {
  return new AppError('flag_invalid', { option, problem: `the environment has no "${text}"` })
}
