#!/usr/bin/env bash
# Builds and runs the server on a machine that has Rust and Node and nothing else.
set -euo pipefail

# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

usage() {
    cat <<'END'
usage: scripts/serve.sh [--demo | --doctor] [--dev] [host] [port] [-- further flags of `codex-api serve`]

  --demo    answer from a scripted upstream: the real Codex CLI, no account, no model
  --doctor  check all that a turn needs (`codex-api doctor`) instead of serving
  --dev     build without optimisation: quicker to build, slower to run
  host      default 127.0.0.1; any but loopback needs CODEX_GATEWAY_TOKEN
  port      default 8000

Takes `codex` from CODEX_BIN or PATH; where there is none, installs the pinned CLI from npm into .tools/.
Settings come from the environment and from .env in the current directory.
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
        -*) usage >&2 && die "$1 is no option of this script; flags of the server come after --" ;;
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

# Whether somebody has said which codex is to be used. An exported CODEX_BIN would win over the one in .env.
codex_is_chosen() {
    [[ -n ${CODEX_BIN:-} ]] && return
    [[ ${CODEX_NO_DOTENV:-0} == 0 && -f .env ]] &&
        grep -qE '^[[:space:]]*(export[[:space:]]+)?CODEX_BIN[[:space:]]*=[[:space:]]*[^[:space:]#]' .env
}

need_rust
if codex_is_chosen; then
    say "codex: as CODEX_BIN says"
elif command -v codex >/dev/null 2>&1; then
    say "codex: $(command -v codex)"
else
    need_node
    install_codex
    export CODEX_BIN=$codex
    say "codex: $CODEX_BIN (to log in: run it with \`login\`)"
fi

target=${CARGO_TARGET_DIR:-$root/target}
say "building codex-api ($profile); the first time takes some minutes"
cargo build --profile "$profile" --locked --bin codex-api --manifest-path "$root/Cargo.toml" --target-dir "$target"
# Cargo's folder for the profile `dev` is `debug`.
exec "$target/${profile/dev/debug}/codex-api" "$command" "${flags[@]}" "$@"
