#!/usr/bin/env bash
# Runs all tests, through the real Codex CLI and with the official clients too. Installs what they need into .tools/.
# Arguments go to `cargo test`: `scripts/test.sh --test it cancel`.
set -euo pipefail

# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

need_rust
need_node
need python3 "install Python 3.10 or newer, with venv (Debian: apt-get install python3-venv)"

clients=$root/tests/clients

make_venv() {
    python3 -c 'import ensurepip, venv' 2>/dev/null ||
        die "python3 has no venv; install it (Debian: apt-get install python3-venv)"
    say "installing the Python clients into ${1#"$root/"}"
    python3 -m venv "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$clients/requirements.txt" >&2
}

make_node_modules() {
    say "installing the Node clients into ${1#"$root/"}"
    cp "$clients/package.json" "$1/"
    npm_install "$1"
}

if [[ -n ${CODEX_BIN:-} ]]; then
    say "codex: $CODEX_BIN, as CODEX_BIN says (the tests are written for $codex_version)"
else
    # Not the one on PATH: what the tests say must not depend on the machine.
    install_codex
    export CODEX_BIN=$codex
fi
once "$tools/venv" "$(python3 --version) $(cksum <"$clients/requirements.txt")" make_venv
once "$tools/clients" "$(cksum <"$clients/package.json")" make_node_modules

# tests/it/clients.rs reads these.
export TEST_PYTHON=$tools/venv/bin/python
TEST_NODE=$(command -v node)
export TEST_NODE TEST_NODE_MODULES=$tools/clients

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
