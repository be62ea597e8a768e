#!/usr/bin/env bash
# Runs all tests, through the real Codex CLI and with the official clients too. Installs what they need into .tools/.
# Arguments go to `cargo test`: `scripts/test.sh --test it cancel`.
set -euo pipefail

# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

need_rust
need_node
if [[ -n ${CODEX_BIN:-} ]]; then
    say "codex: $CODEX_BIN, as CODEX_BIN says (the tests are written for $codex_version)"
else
    # Not the one on PATH: what the tests say must not depend on the machine.
    install_codex
    export CODEX_BIN=$codex
fi
install_clients

cd "$root"
# `cargo test` builds the fake codex and the saboteur only when it builds everything …
cargo build --locked --example fake-codex --example saboteur
if ((!$#)); then
    # … and never runs an example's own tests, some of which talk to it.
    cargo test --locked --example fake-codex
fi
cargo test --locked "$@"
if (($#)); then
    # What was chosen may be a test of either engine.
    exec env TEST_ENGINE=app-server cargo test --locked "$@"
fi
exec env TEST_ENGINE=app-server cargo test --locked --test it
