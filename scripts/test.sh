#!/usr/bin/env bash
# Runs all tests, including those that `cargo test` ignores because they need the real Codex CLI or the official clients.
# Installs both into .tools/. Arguments go to `cargo test`: `scripts/test.sh --test it cancel`.
set -euo pipefail

# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

need_rust
need_node
if [[ -n ${CODEX_BIN:-} ]]; then
    say "codex: $CODEX_BIN, from CODEX_BIN (the tests are written for $codex_version)"
else
    # The result must not depend on the CLI that the machine has on PATH.
    install_codex
    export CODEX_BIN=$codex
fi
install_clients

cd "$root"
# `cargo test --lib` does not build the server, nor `--test it` the examples, that the tests run.
cargo build --locked --bin codex-api --example fake-codex --example saboteur
if (($# == 0)); then
    # `cargo test` builds the examples but does not run their own tests.
    cargo test --locked --example fake-codex
fi
# The soak test takes minutes; scripts/soak.sh runs it.
options=(--include-ignored --skip workers::soak)
for argument in "$@"; do
    if [[ $argument == -- ]]; then
        exec cargo test --locked "$@" "${options[@]}"
    fi
done
exec cargo test --locked "$@" -- "${options[@]}"
