# shellcheck shell=bash
# Local tools below .tools/, for serve.sh, test.sh and .ci/run, which source this file.
# Nothing is installed outside of the checkout. What is there already costs nothing.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$root/.tools
# The Codex CLI that the tests and the documents are about. The only place that says so.
codex_version=$(<"$root/scripts/codex-version")

say() {
    printf '%s\n' "$*" >&2
}

die() {
    say "error: $*"
    exit 1
}

# need PROGRAM WHAT-TO-DO
need() {
    command -v "$1" >/dev/null 2>&1 || die "$1 is not on PATH: $2"
}

need_rust() {
    [[ $(uname -s) == Linux ]] || die "codex-api runs on Linux only"
    need cargo "install Rust $(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$root/Cargo.toml") or newer (rustup)"
}

need_node() {
    need node "install Node.js 18 or newer"
    need npm "install npm (it comes with Node.js)"
    need flock "install util-linux"
}

# once FOLDER KEY COMMAND…: runs `COMMAND… FOLDER` unless it has been run to its end there with the same key.
# Two scripts at once wait for each other; what was interrupted is begun anew.
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

npm_install() {
    local folder=${*: -1}
    # Platform binaries are optional dependencies; no package here needs to run a script of its own.
    (cd "$folder" && npm install --ignore-scripts --include=optional --no-audit --no-fund --loglevel=error \
        "${@:1:$#-1}" >&2)
}

# install_npm FOLDER PACKAGE@VERSION
install_npm() {
    once "$1" "$2" install_package "$2"
}

install_package() {
    say "installing $1 from npm into ${2#"$root/"}"
    printf '{"private": true}\n' >"$2/package.json"
    npm_install "$1" "$2"
}

# Installs the pinned Codex CLI and sets `codex` to its native program, which needs no Node.
install_codex() {
    local folder=$tools/codex-$codex_version found
    install_npm "$folder" "@openai/codex@$codex_version"
    for found in "$folder"/node_modules/@openai/codex-linux-*/vendor/*/bin/codex; do
        codex=$found
        [[ -x $codex ]] && return
    done
    die "npm installed @openai/codex@$codex_version without a program for this machine ($(uname -m)); " \
        "remove ${folder#"$root/"} and try again, or set CODEX_BIN"
}

# Installs the pinned buf and sets `buf`.
install_buf() {
    need_node
    install_npm "$tools/buf" "@bufbuild/buf@1.75.0"
    # shellcheck disable=SC2034 # read by whoever sources this file
    buf=$tools/buf/node_modules/.bin/buf
}

make_venv() {
    python3 -c 'import ensurepip, venv' 2>/dev/null ||
        die "python3 has no venv; install it (Debian: apt-get install python3-venv)"
    say "installing the Python clients into ${1#"$root/"}"
    python3 -m venv "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check \
        --requirement "$root/tests/clients/requirements.txt" >&2
}

make_node_modules() {
    say "installing the Node clients into ${1#"$root/"}"
    cp "$root/tests/clients/package.json" "$1/"
    npm_install "$1"
}

# Installs the official clients and tells tests/it/clients.rs where they are.
install_clients() {
    need python3 "install Python 3.10 or newer, with venv (Debian: apt-get install python3-venv)"
    need_node
    local clients=$root/tests/clients
    once "$tools/venv" "$(python3 --version) $(cksum <"$clients/requirements.txt")" make_venv
    once "$tools/clients" "$(cksum <"$clients/package.json")" make_node_modules
    export TEST_PYTHON=$tools/venv/bin/python
    TEST_NODE=$(command -v node)
    export TEST_NODE TEST_NODE_MODULES=$tools/clients
}
