"""Programs that people run: aider, qwen-code, opencode, the Continue CLI and the LiteLLM proxy, each headless in an empty folder.

BASE_URL=http://127.0.0.1:PORT/v1, API_KEY; NODE, NODE_MODULES, AIDER (the program), LITELLM (the program). The server runs
on the scripted upstream, with an engine that has client tools, and has `codex` as an alias of MODEL: a program that selects
the API by the name of the model must not take the Responses API.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import checks
from checks import check, directive, same

BASE_URL = checks.env("BASE_URL")
API_KEY = checks.env("API_KEY", "unused")
MODEL = checks.env("MODEL", "gpt-5.5")
NODE = checks.env("NODE")
MODULES = Path(checks.env("NODE_MODULES")) / "node_modules"
# Coding agents bring tools of their own.
AGENT_MODEL = "codex:chat"


class Folder:
    """An empty home and working folder for one program, removed at the end."""

    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.path = Path(self.temporary.name)
        (self.path / "home").mkdir()
        self.work = self.path / "work"
        self.work.mkdir()
        subprocess.run(["git", "init", "-q", self.work], check=True)
        return self

    def __exit__(self, *_):
        self.temporary.cleanup()

    def environment(self, more):
        path = f"{Path(NODE).parent}:{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.path / "home"), "LANG": "C.UTF-8", "NO_COLOR": "1", **more}

    def run(self, *command, stdin="", **more):
        """Runs a program to its end and returns what it printed."""
        done = subprocess.run(
            [str(part) for part in command], cwd=self.work, env=self.environment(more), input=stdin,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
        )
        assert done.returncode == 0, f"exit code {done.returncode}: {done.stdout[-1500:]}"
        return done.stdout


def has(text, wanted):
    assert wanted in text, f"no {wanted!r} in {text[-1500:]!r}"


AIDER = ["--yes-always", "--no-check-update", "--no-show-model-warnings", "--no-gitignore", "--no-auto-commits",
         "--no-pretty", "--analytics-disable"]


@check
def aider_chat_and_edit():
    variables = {"OPENAI_API_BASE": BASE_URL, "OPENAI_API_KEY": API_KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    program = checks.env("AIDER")
    with Folder() as folder:
        said = folder.run(program, "--model", f"openai/{MODEL}", *AIDER, "--message", directive({"text": "hello there"}), **variables)
        has(said, "hello there")
        edit = "I change it.\n\nnote.txt\n```\nsecond\n```\n"
        (folder.work / "note.txt").write_text("first\n")
        folder.run(
            program, "--model", f"openai/{MODEL}", "--edit-format", "whole", *AIDER, "--no-stream",
            "--message", directive({"pieces": [edit]}), "note.txt", **variables,
        )
        same((folder.work / "note.txt").read_text(), "second\n")


@check
def qwen_code_tool_loop():
    variables = {"OPENAI_BASE_URL": BASE_URL, "OPENAI_API_KEY": API_KEY, "OPENAI_MODEL": AGENT_MODEL}
    with Folder() as folder:
        file = folder.work / "a.txt"
        call = {"calls": [{"name": "write_file", "arguments": {"file_path": str(file), "content": "hi"}}]}
        program = [NODE, MODULES / "@qwen-code/qwen-code/cli-entry.js"]
        has(folder.run(*program, "--auth-type", "openai", "-y", "-p", directive(call, {"text": "file written"}), **variables), "file written")
        same(file.read_text().strip(), "hi")


@check
def opencode_tool_loop():
    provider = {"npm": "@ai-sdk/openai-compatible", "options": {"baseURL": BASE_URL, "apiKey": API_KEY}, "models": {AGENT_MODEL: {}}}
    model = f"codex-api/{AGENT_MODEL}"
    config = {"model": model, "small_model": model, "provider": {"codex-api": provider}, "permission": "allow",
              "autoupdate": False, "share": "disabled"}
    variables = {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}
    with Folder() as folder:
        (folder.work / "opencode.json").write_text(json.dumps(config))
        call = {"calls": [{"name": "bash", "arguments": {"command": "echo hi > a.txt", "description": "writes a file"}}]}
        [program] = MODULES.glob("opencode-linux-x64/bin/opencode")
        # The program quotes a message of its command line, so that the directive comes by stdin.
        has(folder.run(program, "run", stdin=directive(call, {"text": "file written"}), **variables), "file written")
        same((folder.work / "a.txt").read_text(), "hi\n")


@check
def continue_cli_tool_loop():
    config = {
        "name": "local", "version": "1.0.0", "schema": "v1",
        "models": [{"name": "codex", "provider": "openai", "model": AGENT_MODEL, "apiBase": BASE_URL, "apiKey": API_KEY,
                    "roles": ["chat"], "capabilities": ["tool_use"]}],
    }
    with Folder() as folder:
        (folder.path / "config.yaml").write_text(json.dumps(config))
        file = folder.work / "a.txt"
        call = {"calls": [{"name": "Write", "arguments": {"filepath": str(file), "content": "hi"}}]}
        said = folder.run(
            NODE, MODULES / "@continuedev/cli/dist/cn.js", "--config", folder.path / "config.yaml", "--auto",
            "-p", directive(call, {"text": "file written"}), CONTINUE_TELEMETRY_ENABLED="0",
        )
        has(said, "file written")
        same(file.read_text(), "hi")


# The proxy does not start without one.
PROXY_KEY = "sk-" + "0123456789abcdef" * 4


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def post(url, body):
    """Sends JSON and returns the body of the answer, whatever its status is."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {PROXY_KEY}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


@check
def litellm_proxy():
    parameters = {"model": f"openai/{MODEL}", "api_base": BASE_URL, "api_key": API_KEY}
    config = {"model_list": [{"model_name": "codex", "litellm_params": parameters}], "litellm_settings": {"num_retries": 0}}
    call = {"calls": [{"name": "f", "arguments": {"x": 1}}]}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}}
    with Folder() as folder:
        (folder.path / "config.yaml").write_text(json.dumps(config))
        port = free_port()
        variables = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": PROXY_KEY}
        command = [checks.env("LITELLM"), "--config", str(folder.path / "config.yaml"), "--host", "127.0.0.1", "--port", str(port)]
        with open(folder.path / "log", "wb") as log:
            proxy = subprocess.Popen(command, cwd=folder.work, env=folder.environment(variables), stdout=log, stderr=log)
        try:
            root = f"http://127.0.0.1:{port}"
            checks.until("the proxy answers", lambda: answers(f"{root}/health/liveliness"), seconds=120)

            def complete(messages, **more):
                return post(f"{root}/v1/chat/completions", {"model": "codex", "messages": messages, **more})

            def said(*steps):
                return [{"role": "user", "content": directive(*steps)}]

            has(complete(said({"text": "one two"})), '"content":"one two"')
            stream = complete(said({"text": "one two three", "delay_ms": 100}), stream=True)
            chunks = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
            texts = [chunk["choices"][0]["delta"].get("content") for chunk in chunks if chunk["choices"]]
            same([text for text in texts if text], ["one ", "two ", "three"])
            messages = said(call, {"text": "done"})
            message = json.loads(complete(messages, tools=[tool]))["choices"][0]["message"]
            result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "2"}
            has(complete([*messages, message, result], tools=[tool]), '"content":"done"')
            has(complete(said(checks.TOO_LONG)), "ContextWindowExceededError")
        finally:
            proxy.terminate()
            proxy.wait(30)


if __name__ == "__main__":
    checks.main(600)
