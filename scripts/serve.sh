#!/usr/bin/env bash
# Builds and runs the server on a machine with Rust and Node.js.
set -euo pipefail

# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

usage() {
    cat <<'END'
usage: scripts/serve.sh [--demo | --doctor] [--dev] [host] [port] [-- further flags of `codex-api serve`]

  --demo    answer from a scripted upstream: the real Codex CLI, no account, no model
  --doctor  run `codex-api doctor` instead of serving
  --dev     build without optimisation: faster to build, slower to run
  host      default 127.0.0.1; other addresses than loopback need CODEX_GATEWAY_TOKEN
  port      default 8000

Uses `codex` from CODEX_BIN or PATH. Without one, installs the pinned CLI from npm into .tools/.
Settings come from the environment and from .env in the current directory.
With CODEX_SANDBOX=workspace-write and no CODEX_WORKSPACE, the agent works in a folder of its own
below ${XDG_DATA_HOME:-~/.local/share}/codex-api, because the current directory holds .env and programs.
END
}

command=serve
flags=()
places=()
profile=release
while (($#)); do
    case $1 in
        -h | --help) usage && exit ;;
        --demo) flags+=(--demo) ;;
        --doctor) command=doctor ;;
        --dev) profile=dev ;;
        --) shift && break ;;
        -*) usage >&2 && die "unknown option $1; flags of the server follow after --" ;;
        *) places+=("$1") ;;
    esac
    shift
done
case ${#places[@]} in
    0) ;;
    1) if [[ ${places[0]} =~ ^[0-9]+$ ]]; then flags+=(--port "${places[0]}"); else flags+=(--host "${places[0]}"); fi ;;
    2) flags+=(--host "${places[0]}" --port "${places[1]}") ;;
    *) usage >&2 && die "too many arguments" ;;
esac

# configured NAME [VALUE]: succeeds if the environment or .env sets NAME (to VALUE). An exported variable would take
# precedence over .env.
configured() {
    local name=$1 value=${2:-[^[:space:]#\"\']}
    if [[ -n ${!name:-} ]]; then
        [[ -z ${2:-} || ${!name} == "$2" ]]
        return
    fi
    [[ ${CODEX_NO_DOTENV:-0} == 0 && -f .env ]] &&
        grep -qE "^[[:space:]]*(export[[:space:]]+)?${name}[[:space:]]*=[[:space:]]*[\"']?${value}" .env
}

# has_flag NAME VALUE ARGUMENTS…: succeeds if the arguments have --NAME (with VALUE, unless it is empty).
has_flag() {
    local name=$1 value=$2 argument previous=
    shift 2
    for argument; do
        [[ $argument == "--$name=${value:-${argument#*=}}" ]] && return
        [[ $previous == "--$name" && $argument == "${value:-$argument}" ]] && return
        previous=$argument
    done
    return 1
}

need_rust
if configured CODEX_BIN; then
    say "codex: configured by CODEX_BIN"
elif command -v codex >/dev/null 2>&1; then
    say "codex: $(command -v codex)"
else
    need_node
    install_codex
    export CODEX_BIN=$codex
    say "codex: $CODEX_BIN (run it with \`login\` to log in)"
fi

writes() {
    has_flag sandbox '' "$@" && { has_flag sandbox workspace-write "$@"; return; }
    configured CODEX_SANDBOX workspace-write
}
if writes "$@" && ! configured CODEX_WORKSPACE && ! has_flag workspace '' "$@"; then
    export CODEX_WORKSPACE=${XDG_DATA_HOME:-$HOME/.local/share}/codex-api/workspace
    (umask 077 && mkdir -p "$CODEX_WORKSPACE")
    say "workspace: $CODEX_WORKSPACE (set CODEX_WORKSPACE for another)"
fi

target=${CARGO_TARGET_DIR:-$root/target}
say "building codex-api ($profile); the first time takes some minutes"
cargo build --profile "$profile" --locked --bin codex-api --manifest-path "$root/Cargo.toml" --target-dir "$target"
# Cargo's folder of the profile `dev` is `debug`.
exec "$target/${profile/dev/debug}/codex-api" "$command" "${flags[@]}" "$@"
