"""Prints the table of scripts/clients.sh from the results in a folder: `table.py FOLDER [--write]`.

With --write the table replaces the one of docs/compatibility.md.
"""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[2] / "docs/compatibility.md"
BEGIN, END = "<!-- clients: begin -->\n", "<!-- clients: end -->"


def python(name, file):
    return re.search(rf"^{re.escape(name)}(?:\[.*\])?==(\S+)", (HERE / file).read_text(), re.M)[1]


def node(name):
    return json.loads((HERE / "node/package.json").read_text())["dependencies"][name]


def rust(name):
    return re.search(rf'name = "{name}"\nversion = "(.*)"', (HERE / "async_openai/Cargo.lock").read_text())[1]


# A client, its version, and the prefix of its checks.
CLIENTS = [
    ("aider", python("aider-chat", "aider.txt"), "aider_"),
    ("qwen-code", node("@qwen-code/qwen-code"), "qwen_code_"),
    ("opencode", node("opencode-ai"), "opencode_"),
    ("Continue CLI", node("@continuedev/cli"), "continue_cli_"),
    ("LangChain (langchain-openai)", python("langchain-openai", "python.txt"), "langchain_"),
    ("Pydantic AI", python("pydantic-ai-slim", "python.txt"), "pydantic_ai_"),
    ("LiteLLM, SDK and proxy", python("litellm", "litellm.txt"), "litellm_"),
    ("instructor", python("instructor", "litellm.txt"), "instructor_"),
    ("AI SDK, @ai-sdk/openai-compatible", node("ai"), "ai_sdk_openai_compatible_"),
    ("AI SDK, @ai-sdk/openai", node("ai"), "ai_sdk_openai_(?!compatible)"),
    ("async-openai (Rust)", rust("async-openai"), "async_openai_"),
    ("Semantic Kernel (Python)", python("semantic-kernel", "semantic-kernel.txt"), "semantic_kernel_"),
]


def table(folder):
    """Returns the table and whether every client has passed a check and failed none."""
    lines = "".join(file.read_text() for file in sorted(folder.glob("*.out"))).splitlines()
    outcomes = [match.groups() for match in (re.match(r"(ok|FAIL) (\w+)", line) for line in lines) if match]
    rows, good = ["| client | version | checks | passed |", "| --- | --- | --- | --- |"], True
    for client, version, prefix in CLIENTS:
        own = [(outcome, re.sub(f"^{prefix}", "", name)) for outcome, name in outcomes if re.match(prefix, name)]
        if not own:
            continue
        passed = [name for outcome, name in own if outcome == "ok"]
        good &= len(passed) == len(own)
        names = ", ".join(name.replace("_", " ") for _, name in own)
        rows.append(f"| {client} | {version} | {names} | {len(passed)} of {len(own)} |")
    return "\n".join(rows) + "\n", good and len(rows) > 2


def main():
    text, good = table(Path(sys.argv[1]))
    if "--write" not in sys.argv[2:]:
        print(text, end="")
    elif good:
        page = PAGE.read_text()
        before, rest = page.split(BEGIN)
        PAGE.write_text(before + BEGIN + text + END + rest.split(END)[1])
        print(f"updated {PAGE.name}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
