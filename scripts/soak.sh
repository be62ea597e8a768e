#!/usr/bin/env bash
# Runs thousands of turns of 16 clients in conversations through the real Codex CLI; no turn may fail, memory and disk must stay
# flat. Takes minutes; not part of the suite.
set -euo pipefail

# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

need_rust
if [[ -z ${CODEX_BIN:-} ]]; then
    need_node
    install_codex
    export CODEX_BIN=$codex
fi
cd "$root"
cargo build --bins --examples
exec nice cargo test --test it -- workers::soak --ignored --nocapture
