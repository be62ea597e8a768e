#!/usr/bin/env bash
# Runs all benchmarks on 127.0.0.1 and writes docs/benchmarks.md.
set -euo pipefail

# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# The proxy for comparison. 743 MB, so it is installed only with --litellm.
litellm_version=1.106.0

usage() {
    cat <<'END'
usage: scripts/bench.sh [--quick] [--litellm] [--only PART,…] [--set NAME=VALUE]… [--out FOLDER]

  --quick    one short round of everything, below four minutes; writes to target/bench/
  --litellm  install LiteLLM's proxy into .tools/ for comparison (743 MB); an installed proxy is always measured
  --only     some parts: start, turns, conversations, network, cancel, deltas, idle, flood, hazards; writes to target/bench/
  --set      NAME=VALUE: a setting of the app-server servers, for experiments; writes to target/bench/
  --out      folder for benchmarks.md and its plots (default docs/)

Uses CODEX_BIN, or installs the pinned codex from npm into .tools/. The machine should be otherwise idle.
END
}

options=()
want_litellm=0
out=
default_out=$root/docs
while (($#)); do
    case $1 in
        -h | --help) usage && exit ;;
        --quick) options+=(--quick) && default_out=$root/target/bench ;;
        --litellm) want_litellm=1 ;;
        --only | --set)
            (($# > 1)) || die "$1 needs a value"
            options+=("$1" "$2") && default_out=$root/target/bench && shift
            ;;
        --out)
            (($# > 1)) || die "--out needs a folder"
            out=$2 && shift
            ;;
        *) usage >&2 && die "unknown option $1" ;;
    esac
    shift
done

make_bench_venv() {
    python3 -c 'import ensurepip, venv' 2>/dev/null ||
        die "python3 has no venv; install it (Debian: apt-get install python3-venv)"
    say "installing LiteLLM $litellm_version into ${1#"$root/"}; it is large"
    python3 -m venv "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check "litellm[proxy]==$litellm_version" >&2
}

need_rust
if [[ -n ${CODEX_BIN:-} ]]; then
    codex=$CODEX_BIN
    say "codex: $codex (CODEX_BIN)"
else
    need_node
    install_codex
fi
venv=$tools/bench-venv
if ((want_litellm)) || [[ -f $venv/.made-with ]]; then
    need python3 "install Python 3.10 or newer, with venv (Debian: apt-get install python3-venv)"
    once "$venv" "litellm $litellm_version, $(python3 --version)" make_bench_venv
    options+=(--litellm "$venv/bin/litellm")
fi

target=${CARGO_TARGET_DIR:-$root/target}
say "building"
cargo build --release --locked --bin codex-api --example fake-codex --example bench \
    --manifest-path "$root/Cargo.toml" --target-dir "$target"

# The folder of certificates as the distribution makes it, without certificates of this machine: in a mount namespace, for
# which root is needed. The bench adds an authority of its own to the bundle.
isolated=()
bundle=
for file in /usr/lib/ssl/cert.pem /etc/pki/tls/cert.pem /etc/ssl/cert.pem; do
    [[ -f $file ]] && bundle=$(readlink -f "$file") && break
done
if [[ -n $bundle ]] && unshare -m true 2>/dev/null; then
    store=$(mktemp -d)
    trap 'rm -rf "$store"' EXIT
    cp "$bundle" "$store/"
    # shellcheck disable=SC2016 # The inner shell expands its arguments.
    isolated=(unshare -m /bin/sh -c 'mount --bind "$0" "$1" && shift && exec "$@"' "$store" "$(dirname "$bundle")")
    options+=(--bundle "$bundle")
else
    say "the rows over TLS are left out: they need the right to mount (root) and a bundle of certificates"
fi

# A thousand streams need a thousand sockets on both sides.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
${isolated[@]+"${isolated[@]}"} "$target/release/examples/bench" --gateway "$target/release/codex-api" \
    --fake "$target/release/examples/fake-codex" --codex "$codex" --out "${out:-$default_out}" ${options[@]+"${options[@]}"}
