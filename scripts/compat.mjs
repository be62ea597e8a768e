// Prints the table of scripts/compat.sh from the results in FOLDER: `node compat.mjs FOLDER VERSION...`.
// Exits with 1 if a test is missing, or its outcome differs from scripts/compat-notes.
// `node compat.mjs FOLDER VERSION --failed` prints only the names of the tests that failed without a note.
import { readFileSync } from "node:fs";

const wants = { failed: process.argv.at(-1) === "--failed" };
const [folder, ...versions] = process.argv.slice(2, wants.failed ? -1 : undefined);
const read = (name) => readFileSync(`${folder}/${name}`, "utf8");
const lines = (text) => text.split("\n").filter((line) => line !== "");

const groups = lines(read("groups")).map((line) => {
  const [name, , filters] = line.split("|");
  return { name, filters: filters.split(" ") };
});
const notes = lines(readFileSync(new URL("compat-notes", import.meta.url), "utf8"))
  .filter((line) => !line.startsWith("#"))
  .map((line) => {
    const [version, when, test, ...words] = line.split(" ");
    return { version, always: when === "always", test, words: words.join(" ") };
  });

const prefix = "engine: ";
const found = versions.map((version) => {
  const { checks } = JSON.parse(read(`${version}.json`));
  const gate = checks.filter((check) => check.check.startsWith(prefix));
  // The last outcome of a repeated test counts.
  const outcomes = new Map();
  for (const line of lines(read(`${version}.log`))) {
    const [, name, outcome] = /^test (\S+) \.\.\. .*?\b(ok|FAILED)$/.exec(line) ?? [];
    if (name !== undefined) outcomes.set(name, outcome === "ok");
  }
  const note = (name) => notes.find((note) => version.startsWith(note.version) && name.startsWith(note.test));
  const tests = [...outcomes].map(([name, passed]) => ({ name, passed, note: note(name) }));
  return { version, gate, tests, engine: read(`${version}.engine`).trim() };
});
if (wants.failed) {
  const failed = found.flatMap(({ tests }) => tests.filter((test) => !test.passed && test.note === undefined));
  for (const { name } of failed) console.log(name);
  process.exit();
}

let faults = 0;
const fault = (words) => {
  console.error(`error: ${words}`);
  faults += 1;
};
const escape = (text) => text.replaceAll(/\s+/g, " ").replaceAll("|", "\\|").replaceAll("<", "\\<");
const row = (name, cells) => console.log(`| ${[name, ...cells].map(escape).join(" | ")} |`);
const count = (tests) => `${tests.filter((test) => test.passed).length} of ${tests.length}`;

row("", versions.map((version) => `Codex ${version}`));
row("---", versions.map(() => "---"));
row("`CODEX_ENGINE=auto` selects", found.map(({ engine }) => `\`${engine}\``));
const answers = { ok: "yes", warning: "no", failed: "no" };
const none = `${prefix}app-server`;
const names = new Set(found.flatMap(({ gate }) => gate.map((check) => check.check)));
names.delete(none);
for (const name of names) {
  const outcome = (gate) => gate.find((check) => check.check === name)?.outcome;
  row(name.slice(prefix.length), found.map(({ gate }) => answers[outcome(gate)] ?? "–"));
}
for (const { name, filters } of groups) {
  const cells = found.map(({ version, tests }) => {
    const own = (filter) => tests.filter((test) => test.name.startsWith(filter));
    const all = filters.flatMap(own);
    if (all.length > 0) {
      const empty = filters.filter((filter) => own(filter).length === 0);
      if (empty.length > 0) fault(`Codex ${version}: no test has the prefix ${empty.join(" or ")}`);
    }
    return all.length > 0 ? count(all) : "–";
  });
  row(`tests: ${name}`, cells);
}
row("**all of these tests**", found.map(({ tests }) => count(tests)));

for (const { version, gate, tests, engine } of found) {
  if (tests.length === 0) fault(`Codex ${version}: no test ran`);
  // Omits the usage text that the CLI prints after an error.
  const limit = ({ says }) => `${says.split(": error:")[0].replace(/^(it|the app-server) /, "The CLI ").replace(/\.$/, "")}.`;
  const said = gate.filter((check) => check.outcome !== "ok").map(limit);
  for (const { name, passed, note } of tests) {
    if (note === undefined && !passed) {
      fault(`Codex ${version}: ${name} fails, see ${folder}/${version}.log`);
      said.push(`**\`${name}\` fails.**`);
    } else if (note?.always && passed) {
      fault(`Codex ${version}: ${name} passes, but scripts/compat-notes has it as failing always`);
    } else if (note !== undefined) {
      said.push(note.words);
    }
  }
  if (said.length === 0) continue;
  console.log(`\nCodex ${version} over \`${engine}\`:\n`);
  for (const one of new Set(said)) console.log(`- ${escape(one)}`);
}
process.exitCode = faults > 0 ? 1 : 0;
