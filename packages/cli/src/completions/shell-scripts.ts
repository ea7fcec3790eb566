import type { CommandNode, OptionNode } from './command-tree.ts'

/**
 * What makes shells complete `oz`: written out from the tree of commands, so that completing starts no program. Each script first walks along the
 * words to the command that they name (values of options are no commands), and then offers what can follow.
 */
export const shellScripts = { bash: bashScript, zsh: zshScript, fish: fishScript } as const

export type Shell = keyof typeof shellScripts

/** How each step of the walk is written: what leads to a command, and the options whose value is skipped. */
function steps(nodes: CommandNode[]) {
  const moves = nodes
    .filter((node) => node.parent !== undefined)
    .map(({ path, parent, names }) => ({ path, from: names.map((name) => `${parent} ${name}`) }))
  const [root, ...others] = nodes
  const valued = (options: OptionNode[]) => options.filter((option) => option.takesValue)
  const globals = valued(root?.options ?? [])
  // Of the whole program once, of each command its own.
  const own = others.map(({ path, options }) => ({
    path,
    options: valued(options).filter((option) => !globals.includes(option)),
  }))
  return { moves, globals, own: own.filter(({ options }) => options.length > 0) }
}

const visible = (nodes: CommandNode[]) => nodes.filter((node) => !node.isHidden)
const below = (nodes: CommandNode[], path: string) => visible(nodes).filter((node) => node.parent === path)
const shownOptions = (node: CommandNode) => node.options.filter((option) => !option.isHidden)

/** `'oz run'|'oz task'`, `*' --api-key'`: patterns of a `case` in bash and zsh. */
const patterns = (texts: string[]) => texts.map(quoted).join('|')
const anywhere = (options: OptionNode[]) =>
  options.flatMap(({ names }) => names.map((name) => `*${quoted(` ${name}`)}`))
const at = (path: string, { names }: OptionNode) => names.map((name) => `${path} ${name}`)

/** What bash and zsh write alike: the `case`s of the walk, and, by what `offer` says, those of an option that waits for its value. */
function casesOf(nodes: CommandNode[], offer: (option: OptionNode) => string) {
  const { moves, globals, own } = steps(nodes)
  const owned = own.flatMap(({ path, options }) =>
    options.map((option) => ({ option, pattern: patterns(at(path, option)) })),
  )
  const valued = [...globals.map((option) => ({ option, pattern: anywhere([option]).join('|') })), ...owned]
  return {
    moves: moves.map(({ path, from }) => `      ${patterns(from)}) at=${quoted(path)} ;;`).join('\n'),
    skipped: valued.map(({ pattern }) => pattern).join('|'),
    offers: valued.map(({ option, pattern }) => `    ${pattern}) ${offer(option)}; return ;;`).join('\n'),
  }
}

function bashScript(nodes: CommandNode[]): string {
  const walk = casesOf(nodes, ({ choices, isFile }) =>
    isFile ? '_oz_files' : `_oz_words ${quoted(choices.join(' '))}`,
  )
  return `# Completes oz in bash: eval "$(oz completions bash)"
_oz_words() { COMPREPLY=($(compgen -W "$1" -- "$cur")); }
_oz_files() { compopt -o filenames 2>/dev/null; local IFS=$'\\n'; COMPREPLY=($(compgen -f -- "$cur")); }
_oz() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} at=oz i
  # Readline takes --option=value for three words.
  if [[ $cur == '=' ]]; then cur=; elif [[ $prev == '=' ]]; then prev=\${COMP_WORDS[COMP_CWORD-2]}; fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$at \${COMP_WORDS[i]}" in
${walk.moves}
      ${walk.skipped})
        if [[ \${COMP_WORDS[i+1]} == '=' ]]; then ((i += 2)); else ((i++)); fi ;;
    esac
  done
  case "$at $prev" in
${walk.offers}
  esac
  case "$at $cur" in
${visible(nodes)
  .map((node) => {
    const options = shownOptions(node).flatMap(({ names }) => names)
    const commands = [...below(nodes, node.path).flatMap(({ names }) => names), ...node.choices]
    const words = commands.length > 0 || !node.takesFile ? `_oz_words ${quoted(commands.join(' '))}` : '_oz_files'
    return `    ${quoted(`${node.path} -`)}*) _oz_words ${quoted(options.join(' '))} ;;\n    ${quoted(`${node.path} `)}*) ${words} ;;`
  })
  .reverse()
  .join('\n')}
  esac
}
complete -F _oz oz
`
}

function zshScript(nodes: CommandNode[]): string {
  const walk = casesOf(nodes, ({ choices, isFile, names }) => {
    if (isFile) return '_files'
    return choices.length > 0 ? `compadd -- ${choices.join(' ')}` : `_message ${quoted(names.at(-1) ?? '')}`
  })
  const described = (names: string[], text: string) => names.map((name) => quoted(`${name}:${text}`))
  return `#compdef oz
# Completes oz in zsh: source <(oz completions zsh), or as a file _oz in a folder of $fpath.
_oz() {
  local at=oz
  local -a commands options
  integer i
  for ((i = 2; i < CURRENT; i++)); do
    case "$at \${words[i]}" in
${walk.moves}
      ${walk.skipped}) ((i++)) ;;
    esac
  done
  case "$at \${words[CURRENT-1]}" in
${walk.offers}
  esac
  case $at in
${visible(nodes)
  .map((node) => {
    const commands = [
      ...below(nodes, node.path).flatMap(({ names, summary }) => described(names, summary)),
      ...node.choices.map(quoted),
    ]
    const options = shownOptions(node).flatMap(({ names, text }) => described(names, text))
    return `    ${quoted(node.path)})\n      commands=(${commands.join(' ')})\n      options=(${options.join(' ')}) ;;`
  })
  .join('\n')}
  esac
  if [[ \${words[CURRENT]} == -* ]]; then _describe -o option options
  elif (( $#commands )); then _describe command commands
  else _files; fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _oz "$@"; else compdef _oz oz; fi
`
}

function fishScript(nodes: CommandNode[]): string {
  const { moves, globals, own } = steps(nodes)
  const skipped = [
    ...globals.flatMap(({ names }) => names.map((name) => quoted(`* ${name}`))),
    ...own.flatMap(({ path, options }) => options.flatMap((option) => at(path, option).map(quoted))),
  ]
  const flags = ({ names, takesValue, choices, isFile, text }: OptionNode) => {
    const spelled = names.map((name) => (name.startsWith('--') ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`))
    const value = !takesValue
      ? ''
      : isFile
        ? ' -r -F'
        : ` -x${choices.length > 0 ? ` -a ${quoted(choices.join(' '))}` : ''}`
    return `${spelled.join(' ')}${value} -d ${quoted(text)}`
  }
  return `# Completes oz in fish: oz completions fish | source
function __oz_at
    set -l at oz
    set -l skip 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
            continue
        end
        switch "$at $word"
${moves.map(({ path, from }) => `            case ${from.map(quoted).join(' ')}\n                set at ${quoted(path)}`).join('\n')}
            case ${skipped.join(' ')}
                set skip 1
        end
    end
    echo $at
end
complete -c oz -e
complete -c oz -f
${visible(nodes)
  .flatMap((node) => {
    const here = `complete -c oz -n 'test (__oz_at) = "${node.path}"'`
    return [
      ...below(nodes, node.path).map(
        ({ names, summary }) => `${here} -a ${quoted(names.join(' '))} -d ${quoted(summary)}`,
      ),
      ...shownOptions(node).map((option) => `${here} ${flags(option)}`),
      ...(node.takesFile ? [`${here} -F`] : []),
      ...(node.choices.length > 0 ? [`${here} -a ${quoted(node.choices.join(' '))}`] : []),
    ]
  })
  .join('\n')}
`
}

/** For all three shells. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}
