"""Runs named checks in order. Prints `ok NAME` or `FAIL NAME: reason`, and a summary; exits with 1 after any failure."""

import json
import os
import signal
import struct
import sys
import time
import traceback
import urllib.request
import zlib

CHECKS = []


def check(function):
    """Registers a function as a check with the name of the function."""
    CHECKS.append(function)
    return function


class Skip(Exception):
    """Skips the check. The message names the missing requirement."""


def same(got, wanted, what="value"):
    """Fails unless both are equal."""
    assert got == wanted, f"{what}: got {got!r}, wanted {wanted!r}"


def raises(kind, call, *args, **kwargs):
    """Calls a function and returns its error of this kind. Fails without such an error."""
    try:
        result = call(*args, **kwargs)
    except kind as error:
        return error
    except Exception as error:
        raise AssertionError(f"wanted {kind.__name__}, got {type(error).__name__}: {error}") from error
    raise AssertionError(f"wanted {kind.__name__}, got {str(result)[:200]}")


def directive(*steps):
    """Builds a directive of the scripted upstream (docs/scripted-upstream.md)."""
    return "@@" + json.dumps(list(steps)) + "@@"


# Scripted usage with unusual values, so that counts cannot match by accident.
USAGE = {"input": 10, "cached": 4, "output": 2, "reasoning": 1}
# One message at once, then one that takes longer than any check waits.
ENDLESS = {"messages": [{"text": "the beginning"}, {"tokens": 50_000, "delay_ms": 20}]}
RATE_LIMIT = {
    "status": 429,
    "body": {"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}},
}
NO_MODEL = {
    "status": 400,
    "body": {
        "error": {
            "message": "The requested model 'x' does not exist.",
            "type": "invalid_request_error",
            "code": "model_not_found",
        }
    },
}
REFUSED = {
    "status": 400,
    "body": {"error": {"message": "the upstream refuses this", "type": "invalid_request_error", "code": "bad_thing"}},
}
TOO_LONG = {"failed": {"code": "context_length_exceeded", "message": "Your input exceeds the context window"}}
# Fails without a retry, after a message that the client has received.
BREAKS_OFF = {
    "messages": [{"text": "part one"}, {"text": "lost"}],
    "failed": {"code": "invalid_prompt", "message": "flagged"},
}
# More characters than the server accepts.
HUGE = "x" * 1_100_000


def png(size=8):
    """Builds the PNG file of a red square."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + b"\xff\0\0" * size for _ in range(size))
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def until(what, condition, seconds=20):
    """Polls until the condition holds. Fails after the time limit."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def env(name, default=None):
    """Returns an environment variable. Exits if the variable is not set."""
    value = os.environ.get(name) or default
    if value is None:
        sys.exit(f"{name} is not set")
    return value


def health(base_url):
    """Returns the JSON of /healthz."""
    root = base_url.rstrip("/").removesuffix("/v1")
    with urllib.request.urlopen(root + "/healthz", timeout=10) as response:
        return json.load(response)


def main(seconds=300):
    """Runs the checks whose names contain an argument of the command line, or all."""
    signal.alarm(seconds)  # Ends the process if a check hangs.
    filters = sys.argv[1:]
    passed = failed = 0
    for function in CHECKS:
        name = function.__name__
        if filters and not any(text in name for text in filters):
            continue
        try:
            function()
        except Skip as why:
            print(f"skip {name}: {why}", flush=True)
        except Exception as error:
            failed += 1
            reason = " ".join(str(error).split())[:600] or "no reason"
            where = traceback.extract_tb(error.__traceback__)[1:] or traceback.extract_tb(error.__traceback__)
            line = next((f.lineno for f in where if f.filename == function.__code__.co_filename), "?")
            print(f"FAIL {name}: {type(error).__name__}: {reason} (line {line})", flush=True)
        else:
            passed += 1
            print(f"ok {name}", flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)
    if passed == 0 and failed == 0:
        sys.exit("no check ran")
    sys.exit(1 if failed else 0)
