"""LangChain (langchain-openai) and Pydantic AI: an answer, a stream, a tool loop and a typed answer of each."""

import asyncio
import sys
from pathlib import Path
from typing import Literal, Optional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import checks
from checks import check, directive, same
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

BASE_URL = checks.env("BASE_URL")
API_KEY = checks.env("API_KEY", "unused")
MODEL = checks.env("MODEL", "gpt-5.5")
CHAT = ChatOpenAI(base_url=BASE_URL, api_key=API_KEY, model=MODEL, max_retries=0, timeout=60, use_responses_api=False)
PYDANTIC_AI = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=BASE_URL, api_key=API_KEY))
CALL = {"calls": [{"name": "get_weather", "arguments": {"city": "Rome"}}]}


class Person(BaseModel):
    """A schema as people write it: defaults, an optional field, an enum of numbers."""

    name: str
    age: Optional[int] = None
    level: Literal[1, 2, 3] = 1


@tool
def get_weather(city: str) -> str:
    """Returns the weather."""
    return f"{city}: 25 C"


@check
def langchain_chat():
    answer = CHAT.invoke([("system", "Be short."), ("user", directive({"text": "one two", "usage": checks.USAGE}))])
    same(answer.content, "one two")
    same(answer.usage_metadata["input_tokens"], 10)


@check
def langchain_stream():
    pieces = [chunk.content for chunk in CHAT.stream(directive({"text": "one two three", "delay_ms": 100}))]
    same("".join(pieces), "one two three")
    same([piece for piece in pieces if piece], ["one ", "two ", "three"])


@check
def langchain_tool_loop():
    model = CHAT.bind_tools([get_weather])
    messages = [HumanMessage(directive(CALL, {"text": "It is warm."}))]
    answer = model.invoke(messages)
    [call] = answer.tool_calls
    same((call["name"], call["args"]), ("get_weather", {"city": "Rome"}))
    messages += [answer, ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])]
    same(model.invoke(messages).content, "It is warm.")


@check
def langchain_typed_answer():
    for method in ("json_schema", "function_calling"):
        steps = directive() if method == "json_schema" else directive(
            {"calls": [{"name": "Person", "arguments": {"name": "Ann", "age": 3, "level": 2}}]}
        )
        words = "Who?" if method == "json_schema" else steps
        answer = CHAT.with_structured_output(Person, method=method).invoke(words)
        assert isinstance(answer, Person), (method, answer)


@check
def langchain_loose_typed_answer():
    schema = Person.model_json_schema()
    answer = CHAT.with_structured_output(schema, method="json_schema", strict=False).invoke("Who?")
    Person.model_validate(answer)


@check
def pydantic_ai_chat():
    got = Agent(PYDANTIC_AI, instructions="Be short.").run_sync(directive({"text": "one two"}))
    same(got.output, "one two")


@check
def pydantic_ai_stream():
    async def run():
        async with Agent(PYDANTIC_AI).run_stream(directive({"text": "one two three", "delay_ms": 100})) as result:
            return [piece async for piece in result.stream_text(delta=True, debounce_by=None)]

    pieces = asyncio.run(run())
    same("".join(pieces), "one two three")
    same(len(pieces), 3)


@check
def pydantic_ai_tool_loop():
    agent = Agent(PYDANTIC_AI)
    seen = []

    @agent.tool_plain(name="get_weather")
    def weather(city: str) -> str:
        """Returns the weather."""
        seen.append(city)
        return f"{city}: 25 C"

    same(agent.run_sync(directive(CALL, {"text": "It is warm."})).output, "It is warm.")
    same(seen, ["Rome"])


@check
def pydantic_ai_typed_answer():
    call = {"calls": [{"name": "final_result", "arguments": {"name": "Ann", "age": 3, "level": 2}}]}
    got = Agent(PYDANTIC_AI, output_type=Person).run_sync(directive(call))
    same(got.output, Person(name="Ann", age=3, level=2))


@check
def pydantic_ai_native_typed_answer():
    from pydantic_ai import NativeOutput

    got = Agent(PYDANTIC_AI, output_type=NativeOutput(Person)).run_sync("Who?")
    assert isinstance(got.output, Person), got.output


if __name__ == "__main__":
    checks.main()
