/** A word that a POSIX shell reads as exactly this text. */
export function shellWord(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}

/**
 * Runs a task's agent and leaves its exit code in the file `exit`, in one step, so that nobody needs to be its parent to learn how it ended.
 * `$1` is the control folder, the rest the command. It runs outside of everything that is done to shut the task in, as the worker's
 * user, with an environment that the task has no say in.
 */
export const shim = `folder=$1
shift
"$@"
code=$?
printf '%s\\n' "$code" >"$folder/exit.tmp"
mv "$folder/exit.tmp" "$folder/exit"
`

/**
 * The last step before the agent: takes its variables from the file `$1` and becomes the command. By file, because the programs that
 * started it (some of them as root) must not run with variables that the task chose, and because argv is public.
 */
export const starter = `. "$1"
shift
exec "$@"
`

/** Names that some shells refuse to set; a task that is given one gets the shell's own. */
const readOnlyNames = new Set(['UID', 'EUID', 'PPID', 'SHELLOPTS', 'BASHOPTS', 'BASH_VERSINFO', '_'])

/** The file that `starter` reads. Names that are no shell names cannot be passed on. */
export function variablesFile(variables: Record<string, string>): string {
  const lines = Object.entries(variables)
    .filter(
      ([name, value]) => /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) && !readOnlyNames.has(name) && !value.includes('\0'),
    )
    .map(([name, value]) => `export ${name}=${shellWord(value)}\n`)
  return lines.join('')
}
