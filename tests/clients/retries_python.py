"""The official openai-python with its own retries: it repeats what had no effect, and nothing else.

BASE_URL=http://127.0.0.1:PORT/v1, API_KEY; MODEL if not gpt-5.5. The server runs on the scripted upstream, without retries
of its own, and allows commands to write. The test counts the model calls and reads `effects.txt`.
"""

import openai

import checks
from checks import check, directive, raises, same

CLIENT = openai.OpenAI(base_url=checks.env("BASE_URL"), api_key=checks.env("API_KEY", "unused"), timeout=60)
COMMAND = {"calls": [{"name": "exec_command", "arguments": {"cmd": "echo once >> effects.txt"}}]}


def create(*steps):
    messages = [{"role": "user", "content": directive(*steps)}]
    return CLIENT.chat.completions.create(model=checks.env("MODEL", "gpt-5.5"), messages=messages)


@check
def the_sdk_retries_twice_by_default():
    same(CLIENT.max_retries, 2, "max_retries")


@check
def failure_before_an_effect_is_repeated():
    error = raises(openai.RateLimitError, create, checks.RATE_LIMIT)
    same(error.code, "rate_limit_exceeded", "code")


@check
def failure_after_a_command_is_not_repeated():
    error = raises(openai.InternalServerError, create, COMMAND, checks.RATE_LIMIT)
    same((error.status_code, error.code), (502, "failed_after_effects"))
    same(error.response.headers.get("x-should-retry"), "false", "x-should-retry")


if __name__ == "__main__":
    checks.main()
