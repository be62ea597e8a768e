#!/usr/bin/env bash
# Prints, as a Markdown table, what the app-server engine can do with several versions of the Codex CLI: what the
# gate of the server sees of each, told by `codex-api doctor --json`. Nobody's login or configuration is touched.
# usage: scripts/compat.sh [version...]
set -euo pipefail

# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

versions=("$@")
if (($# == 0)); then
    versions=("$codex_version" 0.140.0 0.110.0)
fi

# program FOLDER: the native program below it. Its folder was called `codex` before 0.140.
program() {
    local found
    for found in "$1"/node_modules/@openai/codex-linux-*/vendor/*/{bin,codex}/codex; do
        [[ -x $found ]] && printf '%s\n' "$found" && return
    done
    die "npm installed no program for this machine ($(uname -m)) into ${1#"$root/"}"
}

need_rust
need_node
cd "$root"
cargo build --locked --bin codex-api
server=${CARGO_TARGET_DIR:-target}/debug/codex-api
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

for version in "${versions[@]}"; do
    folder=$tools/codex-$version
    install_npm "$folder" "@openai/codex@$version"
    codex=$(program "$folder")
    mkdir -p "$scratch/home-$version" "$scratch/workspace"
    say "asking Codex $version"
    # The doctor fails where there is no login, and there is none: what it says of the engine counts.
    env -i PATH="$PATH" HOME="$scratch/home-$version" LANG=C.UTF-8 CODEX_NO_DOTENV=1 CODEX_GATEWAY_PORT=0 \
        CODEX_BIN="$codex" CODEX_WORKSPACE="$scratch/workspace" CODEX_ENGINE=auto \
        timeout 120 "$server" doctor --json >"$scratch/$version.json" || true
done

node - "$scratch" "${versions[@]}" <<'END'
const [folder, ...versions] = process.argv.slice(2);
const { readFileSync } = require("node:fs");
const prefix = "engine: ";
const words = { ok: "yes", warning: "no", failed: "**no**" };
const found = versions.map((version) => {
  const { checks } = JSON.parse(readFileSync(`${folder}/${version}.json`, "utf8"));
  const rows = checks.filter((check) => check.check.startsWith(prefix));
  return new Map(rows.map((check) => [check.check.slice(prefix.length), check]));
});
const names = [...new Set(found.flatMap((rows) => [...rows.keys()]))];
if (names.length === 0) {
  console.error("error: the doctor says nothing of the app-server engine");
  process.exit(1);
}
const cell = (text) => text.replaceAll("|", "\\|").replaceAll("\n", " ");
const line = (cells) => console.log(`| ${cells.map(cell).join(" | ")} |`);
line(["", ...versions.map((version) => `Codex ${version}`)]);
line(["---", ...versions.map(() => "---")]);
for (const name of names) {
  line([name, ...found.map((rows) => words[rows.get(name)?.outcome] ?? "?")]);
}
line(["**usable**", ...found.map((rows) => {
  const outcomes = [...rows.values()].map((check) => check.outcome);
  if (outcomes.length === 0 || outcomes.includes("failed")) return "no: `exec` is used";
  return outcomes.includes("warning") ? "with limits" : "yes";
})]);
for (const [index, version] of versions.entries()) {
  const limits = [...found[index].values()].filter((check) => check.outcome !== "ok");
  if (limits.length > 0) console.log(`\nCodex ${version}:`);
  for (const check of limits) console.log(`- ${check.says}`);
}
END
