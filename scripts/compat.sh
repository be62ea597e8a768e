#!/usr/bin/env bash
# Tests the server with several versions of the Codex CLI. Probes each version (`codex-api doctor --json`), then runs the
# tests with the real CLI over the engine that `auto` selects. Prints a Markdown table; --write updates
# docs/compatibility.md. Exits with 1 if a test fails without a reason in scripts/compat-notes.
# Does not use or change the user's login and configuration. Takes about ten minutes.
# usage: scripts/compat.sh [--write] [version...]
set -euo pipefail

# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

write=
if [[ ${1:-} == --write ]]; then
    write=docs/compatibility.md
    shift
fi
versions=("$@")
if (($# == 0)); then
    versions=("$codex_version" 0.140.0 0.110.0)
fi

# The tests: a title for the table, the capability that they need, and the prefixes of their names.
groups=(
    "no command runs without an environment|any|trust::environment::"
    "answers, long and odd texts|any|chat::answer_of_the_real_cli limits::prompts::unusual_texts_reach_the_model limits::prompts::answer_of_120000_tokens"
    "cancellation|any|cancel::abandoned_turns_of_the_real_cli cancel::command_"
    "failures and retries|any|errors::failures_of_the_real_cli errors::unreachable_upstream errors::failed_request_of_the_real_cli errors::incomplete_response_of_the_real_cli"
    "OpenAI login over HTTPS and WebSocket|any|upstream::transports"
    "sandbox and secrets|any|trust::sandbox::writing_turn trust::secrets::command_ trust::secrets::sandboxed_command"
    "openai-python, openai-node, grpcio|any|clients::openai_python_passes clients::openai_node_passes clients::grpc_python"
    "histories, item by item|app-server|histories::"
    "lost and replaced workers, leftovers|app-server|workers::lost::killed_worker_of_the_real_cli workers::lost::stopped_worker_of_the_real_cli workers::recycle::worker_of_the_real_cli workers::leftovers::abandoned_turns_of_the_real_cli"
    "client tools, also with the SDKs and openai-agents|tools|tools:: clients::openai_python_with_tools clients::openai_node_with_tools clients::openai_agents"
)

# program FOLDER: prints the path of the native program below FOLDER. Its folder was called `codex` before 0.140.
program() {
    local found
    for found in "$1"/node_modules/@openai/codex-linux-*/vendor/*/{bin,codex}/codex; do
        [[ -x $found ]] && printf '%s\n' "$found" && return
    done
    die "npm installed no program for this machine ($(uname -m)) into ${1#"$root/"}"
}

# doctor VERSION: writes the doctor's report on the CLI at CODEX_BIN to VERSION.json.
doctor() {
    mkdir -p "$results/home-$1" "$results/workspace"
    # The doctor fails without a login. Only its checks of the engine are used.
    env -i PATH="$PATH" HOME="$results/home-$1" LANG=C.UTF-8 CODEX_NO_DOTENV=1 CODEX_GATEWAY_PORT=0 \
        CODEX_BIN="$CODEX_BIN" CODEX_WORKSPACE="$results/workspace" CODEX_ENGINE=auto \
        timeout 120 "$server" doctor --json >"$results/$1.json" || true
}

# tests LOG ARGUMENT...: runs tests one after the other, so that they do not disturb each other's times.
tests() {
    local log=$1
    shift
    timeout 480 cargo test --locked --test it -- --test-threads 1 --include-ignored "$@" >>"$log" 2>&1 || true
    tail -n 5 "$log" | grep -q '^test result: ' || die "the tests did not complete, see $log"
}

# cases ENGINE PREFIX...: prints the names of tests that begin with a prefix, without the cases of the other engine.
cases() {
    local other=exec prefix
    [[ $1 == exec ]] && other=app_server
    for prefix in "${@:2}"; do
        { grep "^$prefix" "$results/tests" || true; } | { grep -Ev "::$other(::|\$)" || true; }
    done | sort -u
}

# has VERSION CHECK...: succeeds if the doctor reported `ok` for each CHECK.
has() {
    node -e 'const [file, ...names] = process.argv.slice(1);
        const { checks } = JSON.parse(require("node:fs").readFileSync(file, "utf8"));
        const good = (name) => checks.some((check) => check.check === name && check.outcome === "ok");
        process.exit(names.every(good) ? 0 : 1);' "$results/$1.json" "${@:2}"
}

need_rust
install_clients
cd "$root"
cargo build --locked --bin codex-api --example fake-codex --example saboteur
cargo test --locked --test it --no-run
target=${CARGO_TARGET_DIR:-target}
server=$target/debug/codex-api
# Kept after the run, for inspection.
results=$root/.tools/compat
rm -rf "$results"
mkdir -p "$results"
printf '%s\n' "${groups[@]}" >"$results/groups"
cargo test --locked --test it -- --list 2>/dev/null | sed -n 's/: test$//p' >"$results/tests"

for version in "${versions[@]}"; do
    folder=$tools/codex-$version
    install_npm "$folder" "@openai/codex@$version"
    CODEX_BIN=$(program "$folder")
    export CODEX_BIN
    say "probing Codex $version"
    doctor "$version"
    tests "$results/$version.engine.log" --nocapture trust::environment::engine_rejected_by_auto
    engine=$(sed -n 's/.*auto takes "\([a-z-]*\)".*/\1/p' "$results/$version.engine.log")
    [[ -n $engine ]] || die "the test did not print the engine that \`auto\` selects, see $results/$version.engine.log"
    printf '%s\n' "$engine" >"$results/$version.engine"
    offers=" any $engine "
    if [[ $engine == app-server ]] && has "$version" "engine: client tools" "engine: ends of responses"; then
        offers+="tools "
    fi
    chosen=()
    for group in "${groups[@]}"; do
        IFS='|' read -r _ needed filters <<<"$group"
        [[ $offers == *" $needed "* ]] || continue
        read -ra filters <<<"$filters"
        chosen+=("${filters[@]}")
    done
    say "testing Codex $version over $engine (log: $results/$version.log)"
    mapfile -t chosen < <(cases "$engine" "${chosen[@]}")
    tests "$results/$version.log" --exact "${chosen[@]}"
    # A busy machine can fail a test. Tests that failed without a note run a second time.
    mapfile -t again < <(node "$root/scripts/compat.mjs" "$results" "$version" --failed)
    if ((${#again[@]})); then
        say "repeating: ${again[*]}"
        tests "$results/$version.log" --exact "${again[@]}"
    fi
done

code=0
node "$root/scripts/compat.mjs" "$results" "${versions[@]}" >"$results/table.md" || code=$?
if [[ -n $write && $code == 0 ]]; then
    node - "$write" "$results/table.md" <<'END'
const { readFileSync, writeFileSync } = require("node:fs");
const [file, table] = process.argv.slice(2);
const [begin, end] = ["<!-- compat: begin -->\n", "<!-- compat: end -->"];
const text = readFileSync(file, "utf8");
const [from, to] = [text.indexOf(begin), text.indexOf(end)];
if (from < 0 || to < from) throw new Error(`${file} has no markers for the table`);
writeFileSync(file, text.slice(0, from + begin.length) + readFileSync(table, "utf8") + text.slice(to));
END
    say "updated $write"
else
    cat "$results/table.md"
fi
exit "$code"
