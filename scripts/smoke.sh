#!/usr/bin/env bash
# Starts scripts/serve.sh --demo, sends a request to both doors (curl, and buf with reflection), then SIGTERM.
# Arguments are passed to serve.sh: `scripts/smoke.sh --dev` builds faster.
set -euo pipefail

# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

need curl "install curl"
install_buf

log=$(mktemp)
# Settings of the caller's environment must not apply.
export CODEX_NO_DOTENV=1
unset CODEX_GATEWAY_TOKEN
# The server takes a free port itself: a port chosen before the build could be in use after it.
"$root/scripts/serve.sh" --demo "$@" 127.0.0.1 0 >"$log" 2>&1 &
server=$!
finish() {
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    rm -f "$log"
}
trap finish EXIT

fail() {
    cat "$log" >&2
    die "$*"
}

# The address from the log.
url=
# 15 minutes for the build; the server itself starts within a second.
for ((second = 0; ; second++)); do
    url=$(sed -n 's|.* is listening .*listen=\(127\.0\.0\.1:[0-9]*\).*|http://\1|p' "$log" | head -n 1)
    [[ -n $url ]] && curl --silent --fail --output /dev/null "$url/healthz" && break
    kill -0 "$server" 2>/dev/null || fail "serve.sh exited"
    ((second < 900)) || fail "no healthy server within 15 minutes"
    sleep 1
done

answer=$(curl --silent --no-buffer "$url/v1/chat/completions" --header 'content-type: application/json' \
    --data '{"stream": true, "messages": [{"role": "user", "content": "@@ {\"text\": \"over http\"} @@"}]}')
[[ $answer == *'"content":'* && $answer == *'data: [DONE]' ]] || fail "no streamed answer: $answer"

answer=$("$buf" curl --protocol grpc --http2-prior-knowledge "$url/codex.v1.CodexService/Chat" \
    --data '{"messages": [{"role": "ROLE_USER", "parts": [{"text": "@@ {\"text\": \"over grpc\"} @@"}]}]}')
[[ $answer == *'over grpc'* ]] || fail "no answer over gRPC: $answer"

kill -TERM "$server"
code=0
wait "$server" || code=$?
((code == 0)) || fail "the server exited with $code on SIGTERM"
say "serve.sh --demo answers on both doors and stops on SIGTERM"
