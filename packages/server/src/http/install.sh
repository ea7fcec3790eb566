#!/bin/sh
# Installs openoz on this Linux machine, from the control plane that this script came from and from nowhere else; no other host is asked.
#
#   curl -fsS URL/install.sh | sh                            `oz` and `oz-agent-worker`, with their own Node; or the update of both
#   curl -fsS URL/install.sh | sh -s -- --join TOKEN         and a worker with a key of its own, started and kept running
#   curl -fsS URL/install.sh | sh -s -- --uninstall          ends the worker and removes all of it
#
# With --join: --worker-id ID (default: the host's name), --backend auto|docker|direct (default: auto), and behind `--` any other flag of
# `oz-agent-worker`. OZ_JOIN_TOKEN stands in for --join TOKEN.
#
# As root it is installed for the machine, in /opt/openoz; as anybody else for that user, below the home folder.
#
# Until the token is found good and the download is whole and verified, nothing is written but a temporary folder. What is stopped after that, by Ctrl-C or
# another signal, is undone; what is killed is finished by the same line within ten minutes, and removed by --uninstall. Everything is in functions, and
# the last line begins it: of a download that was cut, nothing runs.
set -eu
umask 077
# Who reads what is said may go before the end.
trap 'exit 141' PIPE

server='@SERVER@'

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

wrong_use() {
  printf 'error: %s\nusage: sh -s -- [--join TOKEN] [--worker-id ID] [--backend auto|docker|direct] [--uninstall] [-- FLAG...]\n' "$*" >&2
  exit 2
}

has() { command -v "$1" >/dev/null 2>&1; }

# What a problem document says to people.
sentence() { printf '%s' "$1" | sed -n 's/.*"detail":"\(\([^"\\]\|\\.\)*\)".*/\1/p' | sed 's/\\\(.\)/\1/g'; }

# Starts a program that dials the server. (`curl -q`: what somebody has set for their own use is not to change ours.) A proxy's loopback is another machine.
dial() (
  case $server in
    *://localhost | *://localhost[:/]* | *://127.* | *'://[::1]'*)
      unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY || true
      ;;
  esac
  if [ -n "${OZ_CA_FILE-}" ]; then export CURL_CA_BUNDLE="$OZ_CA_FILE"; fi
  exec "$@"
)

# Every user of a machine sees the arguments of its programs: the token goes to curl by its standard input. What stands in for curl cannot take it so;
# then the token is first asked for by the program that is downloaded, which is before anything is installed, too.
check_token() {
  case $token in
    jt-?*) ;;
    *) fail 'This is no join token: those begin with jt-.' ;;
  esac
  case $token in
    *[!A-Za-z0-9_-]*) fail 'This is no join token: it has a character that none has.' ;;
  esac
  # Who was killed after the token was spent is answered again, by its number.
  [ ! -e "$config/joining.json" ] || return 0
  has curl || return 0
  answer=$(
    printf 'header = "Authorization: Bearer %s"\n' "$token" |
      dial curl -q -sS --config - -w '\n%{http_code}' "$server/api/v1/worker-join"
  ) || fail "$server does not answer."
  status=$(printf '%s\n' "$answer" | sed -n '$p')
  [ "$status" = 200 ] || fail "$(sentence "$answer") (HTTP $status of $server)"
}

# $1: address, $2: file.
download() {
  if has curl; then
    status=$(dial curl -q -sS -o "$2" -w '%{http_code}' "$1" </dev/null) || fail "$1 could not be downloaded."
    [ "$status" = 200 ] || fail "$(sentence "$(head -c 4000 "$2")") (HTTP $status of $1)"
  elif [ -n "${OZ_CA_FILE-}" ]; then
    dial wget -q --ca-certificate "$OZ_CA_FILE" -O "$2" "$1" </dev/null || fail "$1 could not be downloaded."
  else
    dial wget -q -O "$2" "$1" </dev/null || fail "$1 could not be downloaded."
  fi
}

# Sets `stage`: a folder that goes when this script ends, from which programs may be started. Many a /tmp does not allow that.
make_stage() {
  for place in "${TMPDIR:-/tmp}" /var/tmp "${HOME:-/var/tmp}"; do
    stage=$(mktemp -d "$place/openoz-install.XXXXXX" 2>/dev/null) || continue
    trap 'rm -rf "$stage"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\n' >"$stage/try"
    chmod 700 "$stage/try"
    if "$stage/try" 2>/dev/null; then return 0; fi
    rm -rf "$stage"
  done
  fail 'There is no folder for temporary files from which programs may be started; TMPDIR can name one.'
}

# Nothing that is set for other programs is to change ours.
run_staged() (
  unset NODE_OPTIONS NODE_PATH LD_PRELOAD LD_AUDIT LD_LIBRARY_PATH OPENSSL_CONF || true
  lib=$stage/agent/lib
  exec "$lib/ld.so" --library-path "$lib" "$stage/agent/bin/node" "$stage/agent/app/oz-agent-worker.mjs" "$@" </dev/null
)

# Sets `base` and `config`, as the programs have them.
find_places() {
  if [ "$(id -u)" = 0 ]; then
    base=/opt/openoz config=/etc/openoz
  else
    : "${HOME:?is not set. It says where this user has programs and settings.}"
    base=$HOME/.local/lib/openoz config=${XDG_CONFIG_HOME:-$HOME/.config}/openoz
  fi
}

uninstall() {
  if [ -e "$base/current/bin/oz-agent-worker" ]; then exec sh "$base/current/bin/oz-agent-worker" leave </dev/null; fi
  if [ ! -e "$base" ] && [ ! -e "$config/installation.json" ]; then
    printf 'There is no openoz in %s.\n' "$base"
    exit 0
  fi
  # An installation that was killed, or programs that somebody has removed: what knows the way back has to be fetched.
  stage_bundle
  run_staged leave
  exit
}

# Sets `cpu`, or says why there is nothing for this machine.
check_machine() {
  [ "$(uname -s)" = Linux ] || fail "This installs on Linux, and this is $(uname -s)."
  case $(uname -m) in
    x86_64 | amd64) cpu=amd64 ;;
    aarch64 | arm64) cpu=arm64 ;;
    *) fail "There is no agent for the CPU $(uname -m): x86_64 and aarch64 have one." ;;
  esac
  for tool in tar gzip mktemp sed; do has "$tool" || fail "$tool is needed and not installed."; done
  has curl || has wget || fail 'curl or wget is needed and neither is installed.'
}

stage_bundle() {
  check_machine
  make_stage
  download "$server/install/agent-linux-$cpu.tar.gz" "$stage/agent.tar.gz"
  (umask 022 && mkdir "$stage/agent" && gzip -dc "$stage/agent.tar.gz" | tar -xf - -C "$stage/agent") ||
    fail 'The download could not be unpacked.'
  rm "$stage/agent.tar.gz"
}

main() {
  token=${OZ_JOIN_TOKEN-}
  unset OZ_JOIN_TOKEN || true
  joins=${token:+yes}
  worker_id=
  backend=auto
  action=install
  while [ $# -gt 0 ]; do
    case $1 in
      --join | --worker-id | --backend)
        [ $# -ge 2 ] || wrong_use "$1 needs a value."
        case $1 in
          --join) token=$2 joins=yes ;;
          --worker-id) worker_id=$2 ;;
          *) backend=$2 ;;
        esac
        shift
        ;;
      --join=*) token=${1#*=} joins=yes ;;
      --worker-id=*) worker_id=${1#*=} ;;
      --backend=*) backend=${1#*=} ;;
      --uninstall) action=uninstall ;;
      --)
        shift
        break
        ;;
      *) wrong_use "$1 is not known." ;;
    esac
    shift
  done
  find_places
  [ "$action" != uninstall ] || uninstall
  if [ -n "$worker_id" ]; then set -- --worker-id "$worker_id" "$@"; fi

  check_machine
  if [ -n "$joins" ]; then check_token; fi
  stage_bundle
  export OZ_SERVER_URL="$server"
  if [ -n "$joins" ]; then OZ_JOIN_TOKEN=$token run_staged set-up --backend "$backend" "$@"; else run_staged set-up; fi
}

{ main "$@"; }
