"""LiteLLM as SDK, and instructor: an answer, a stream, a tool loop and typed answers with loose schemas."""

import sys
from pathlib import Path
from typing import Literal, Optional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # The tests talk to this machine only.

import checks
import instructor
import litellm
from checks import check, directive, raises, same
from openai import OpenAI
from pydantic import BaseModel, Field

BASE_URL = checks.env("BASE_URL")
API_KEY = checks.env("API_KEY", "unused")
MODEL = checks.env("MODEL", "gpt-5.5")
CALL = {"calls": [{"name": "get_weather", "arguments": {"city": "Rome"}}]}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Returns the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Person(BaseModel):
    """A loose schema: defaults, limits, an open map and a reference to itself."""

    name: str
    age: Optional[int] = Field(default=None, ge=0, le=150)
    level: Literal[1, 2, 3] = 1


def complete(messages, **more):
    """Calls LiteLLM without its retries."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return litellm.completion(
        model=f"openai/{MODEL}", api_base=BASE_URL, api_key=API_KEY, num_retries=0, timeout=60, messages=messages, **more
    )


@check
def litellm_chat():
    got = complete(directive({"text": "one two", "usage": checks.USAGE}))
    same(got.choices[0].message.content, "one two")
    same(got.usage.prompt_tokens, 10)


@check
def litellm_stream():
    chunks = list(complete(directive({"text": "one two three", "delay_ms": 100}), stream=True, stream_options={"include_usage": True}))
    same("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), "one two three")
    assert any(getattr(chunk, "usage", None) for chunk in chunks), "no usage"


@check
def litellm_tool_loop():
    messages = [{"role": "user", "content": directive(CALL, {"text": "It is warm."})}]
    message = complete(messages, tools=[TOOL]).choices[0].message
    [call] = message.tool_calls
    same(call.function.arguments.replace(" ", ""), '{"city":"Rome"}')
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": "25 C"}]
    same(complete(messages, tools=[TOOL]).choices[0].message.content, "It is warm.")


@check
def litellm_knows_the_errors():
    raises(litellm.ContextWindowExceededError, complete, directive(checks.TOO_LONG))
    raises(litellm.ContextWindowExceededError, complete, checks.HUGE)
    raises(litellm.RateLimitError, complete, directive(checks.RATE_LIMIT))
    raises(litellm.NotFoundError, complete, directive(checks.NO_MODEL))


@check
def instructor_modes():
    client = OpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0, timeout=60)
    person = {"name": "Ann", "age": 3, "level": 2}
    text = '{"name": "Ann", "age": 3, "level": 2}'
    modes = {
        instructor.Mode.TOOLS: {"calls": [{"name": "Person", "arguments": person}]},
        instructor.Mode.JSON: {"text": text},
        instructor.Mode.MD_JSON: {"text": f"```json\n{text}\n```"},
        instructor.Mode.JSON_SCHEMA: {"text": text},
    }
    for mode, step in modes.items():
        patched = instructor.from_openai(client, mode=mode)
        messages = [{"role": "user", "content": directive(step)}]
        got = patched.chat.completions.create(model=MODEL, response_model=Person, messages=messages, max_retries=0)
        same(got.model_dump(), person, str(mode))


@check
def instructor_partial_objects():
    client = instructor.from_openai(
        OpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0, timeout=60), mode=instructor.Mode.JSON
    )
    steps = directive({"pieces": ['{"name": ', '"Ann", ', '"age": 3, ', '"level": 2}']})
    seen = list(
        client.chat.completions.create_partial(
            model=MODEL, response_model=Person, messages=[{"role": "user", "content": steps}], max_retries=0
        )
    )
    same((seen[-1].name, seen[-1].age, seen[-1].level), ("Ann", 3, 2))


if __name__ == "__main__":
    checks.main()
