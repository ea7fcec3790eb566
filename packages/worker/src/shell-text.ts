/** A word that a POSIX shell reads as exactly this text. */
export function shellWord(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}

/**
 * Runs a task's agent and leaves its exit code in the file `exit`, in one step, so that nobody needs to be its parent to learn how it ended.
 * `$1` is the control folder, `$2` the user that the task has to itself (or empty), the rest the command. It runs outside of everything that is
 * done to shut the task in, as the worker's user, with an environment that the task has no say in.
 *
 * The room for the code is taken before the agent starts, which may fill the disk: three blanks, which are no code, overwritten in place.
 *
 * Before anything else it writes down who it is (`shim`: pid, boot, its line of /proc; whole when the last line is a dot), so that a worker which is
 * killed in this moment has a successor that knows.
 *
 * The guard is for an agent that is frozen and cannot stop its own tools: nobody but a sleeping shell is needed to end them. It reads the deadline
 * that the agent puts into `spool/lease` (milliseconds on the clock of /proc/uptime) and ends everything when that has passed, with
 * the exit code of a lost lease. Without the file there is no deadline yet. It never sleeps past the deadline, which can only move away meanwhile, and
 * never more than 5 s, because a sleep does not count the time in which the machine was suspended.
 *
 * The file is the task's, and may be anything: links are not followed, pipes not waited for, and what is longer than a number, or is one to another
 * base, is no deadline. The first one comes from the agent before any of its tools runs. How far away that was, or 15 min if that is more, is the most
 * that any later one is believed for, counted from when it was first seen; the worker finds it in `longest-lease`.
 */
export const shim = `folder=$1
user=$2
shift 2
{ read -r boot </proc/sys/kernel/random/boot_id && read -r stat <"/proc/$$/stat"; } 2>/dev/null
[ -n "$boot" ] || stat=$(LC_ALL=C TZ=UTC ps -o lstart= -p "$$")
printf '%s\\n%s\\n%s\\n.\\n' "$$" "$boot" "$stat" >"$folder/shim"

# Stops what belongs to the task and is not in $found yet: with its mark, of its user, or below what does. A user may have been given to a task of
# another installation as well; that one's processes say so.
freeze() {
  marked=$(grep -lF "OZ_EXECUTION_ID=$OZ_EXECUTION_ID" /proc/[0-9]*/environ)
  foreign=
  if [ -n "$user" ]; then
    foreign=$(grep -LF "OZ_WORKER_STATE=\${OZ_WORKER_STATE%%/*}/" $(grep -lF OZ_WORKER_STATE= /proc/[0-9]*/environ) /dev/null)
  fi
  new=
  before=
  for word in $(grep -hE '^(State|Pid|PPid|Uid):' /proc/[0-9]*/status); do
    case $before in
      State:) state=$word ;;
      Pid:) pid=$word ;;
      PPid:) parent=$word ;;
      Uid:)
        belongs=
        case $found in *" $parent "*) belongs=1 ;; esac
        case $marked in *"/proc/$pid/environ"*) belongs=1 ;; esac
        if [ "$word" = "$user" ]; then
          case $foreign in *"/proc/$pid/environ"*) ;; *) belongs=1 ;; esac
        fi
        case $found$self' ' in *" $pid "*) belongs= ;; esac
        case $state in Z | X) belongs= ;; esac
        if [ -n "$belongs" ] && kill -s STOP "$pid"; then
          found="$found$pid "
          new=1
        fi
        ;;
    esac
    before=$word
  done
}

end() {
  # The shim asks us to go when the agent ends meanwhile: too late, or it would be left stopped.
  trap '' TERM
  # Or it would take what is killed for the agent's own end.
  kill -s STOP "$$" || exit
  round=0
  while [ "$round" -lt 50 ]; do
    found=" $$ "
    # All are stopped before the first is killed: what is stopped starts nothing, and the parents are known while they live.
    while [ "$round" -lt 50 ]; do
      round=$((round + 1))
      freeze
      [ -n "$new" ] || break
    done
    [ "$found" != " $$ " ] || break
    for pid in $found; do
      [ "$pid" = "$$" ] || kill -s KILL "$pid"
    done
  done
  if [ ! -e "$folder/exit" ]; then
    printf '075\\n' 1<>"$folder/exit.tmp"
    mv "$folder/exit.tmp" "$folder/exit"
  fi
  kill -s KILL "$$"
  # What of the group has no such environment; us too.
  kill -s KILL -- "-$$"
  exit
}

guard() {
  nap=
  longest=
  seen=
  trap 'kill "$nap" 2>/dev/null; exit' TERM
  read -r self rest </proc/self/stat || return
  lease=$folder/spool/lease
  reader='dd iflag=nofollow,nonblock'
  $reader if=/dev/null || reader='timeout 1 dd'
  while :; do
    pause=1
    if [ -f "$lease" ] && [ ! -L "$lease" ] && deadline=$($reader if="$lease" bs=32 count=1) && read -r up rest </proc/uptime; then
      case $deadline in
        '' | *[!0-9]* | 0?* | ????????????????*) ;;
        *)
          now=\${up%.*}\${up#*.}0
          left=$((deadline - now))
          if [ -z "$longest" ]; then
            # What passed until we looked, and more.
            longest=$((left + 10000))
            [ "$longest" -ge 900000 ] || longest=900000
            printf '%s\\n' "$longest" >"$folder/longest-lease"
          fi
          if [ "$deadline" != "$seen" ]; then
            seen=$deadline
            latest=$((now + longest))
          fi
          [ "$deadline" -le "$latest" ] || left=$((latest - now))
          if [ "$left" -le 0 ]; then end; fi
          if [ "$left" -gt 5000 ]; then pause=5; elif [ "$left" -gt 1000 ]; then pause=$((left / 1000)); else pause=0.1; fi
          ;;
      esac
    else
      kill -0 "$$" || exit
    fi
    sleep "$pause" &
    nap=$!
    wait "$nap" || sleep 1
  done
}

printf '   \\n' >"$folder/exit.tmp"
guard 2>/dev/null &
guard=$!
"$@"
code=$?
kill "$guard" 2>/dev/null
printf '%03d\\n' "$code" 1<>"$folder/exit.tmp"
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
