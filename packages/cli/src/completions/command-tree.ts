import type { Command, Option } from 'commander'

/** One command with everything that can stand behind it. */
export interface CommandNode {
  /** As it is written in full, without aliases: `oz run list`. */
  path: string
  /** All ways to write it behind its parent: `list`. */
  names: string[]
  parent: string | undefined
  summary: string
  isHidden: boolean
  options: OptionNode[]
  /** Whether its first argument is a file. */
  takesFile: boolean
  /** What its first argument can be, where that is known. */
  choices: readonly string[]
}

export interface OptionNode {
  /** `-L`, `--limit`. */
  names: string[]
  text: string
  isHidden: boolean
  takesValue: boolean
  choices: readonly string[]
  isFile: boolean
}

export function commandNodes(program: Command): CommandNode[] {
  const globals = optionNodes(program)
  const walk = (command: Command, path: string, parent: string | undefined): CommandNode[] => {
    const node: CommandNode = {
      path,
      names: [command.name(), ...command.aliases()],
      parent,
      summary: command.description(),
      isHidden: isHidden(command),
      options: parent === undefined ? globals : [...optionNodes(command), ...globals],
      takesFile: isFileName(command.registeredArguments[0]?.name() ?? ''),
      choices: command.registeredArguments[0]?.argChoices ?? [],
    }
    return [node, ...command.commands.flatMap((below) => walk(below, `${path} ${below.name()}`, path))]
  }
  return walk(program, program.name(), undefined)
}

function optionNodes(command: Command): OptionNode[] {
  const nodes = command.options.map((option: Option) => ({
    names: [option.short, option.long].filter((name) => name !== undefined),
    text: option.description,
    isHidden: option.hidden,
    takesValue: option.required,
    choices: option.argChoices ?? [],
    isFile: isFileName(/[<[]([\w-]+)/.exec(option.flags)?.[1] ?? ''),
  }))
  const help = { names: ['-h', '--help'], text: 'print this help', takesValue: false, choices: [], isFile: false }
  return command.parent === null ? [...nodes, { ...help, isHidden: false }] : nodes
}

function isFileName(placeholder: string): boolean {
  return ['path', 'file', 'dir', 'folder'].includes(placeholder)
}

/** The library keeps it to itself; its help does not. */
function isHidden(command: Command): boolean {
  if (command.parent === null) return false
  return !command.parent.createHelp().visibleCommands(command.parent).includes(command)
}
