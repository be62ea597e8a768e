"""Semantic Kernel: an answer, a stream, a tool loop and a typed answer."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import checks
from checks import check, directive, same
from openai import AsyncOpenAI
from pydantic import BaseModel
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion, OpenAIChatPromptExecutionSettings
from semantic_kernel.contents import ChatHistory
from semantic_kernel.functions import kernel_function

BASE_URL = checks.env("BASE_URL")
API_KEY = checks.env("API_KEY", "unused")
MODEL = checks.env("MODEL", "gpt-5.5")


class Person(BaseModel):
    """A typed answer."""

    name: str
    age: int | None = None


class Weather:
    """A plugin with one function."""

    def __init__(self):
        self.seen = []

    @kernel_function(name="get_weather", description="Returns the weather.")
    def get_weather(self, city: str) -> str:
        self.seen.append(city)
        return f"{city}: 25 C"


def service():
    """Returns the chat service; a client belongs to one event loop."""
    client = AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0, timeout=60)
    return OpenAIChatCompletion(ai_model_id=MODEL, async_client=client)


def history(*steps):
    messages = ChatHistory(system_message="Be short.")
    messages.add_user_message(directive(*steps))
    return messages


@check
def semantic_kernel_chat():
    settings = OpenAIChatPromptExecutionSettings()
    got = asyncio.run(service().get_chat_message_content(history({"text": "one two"}), settings))
    same(str(got), "one two")


@check
def semantic_kernel_stream():
    async def run():
        settings = OpenAIChatPromptExecutionSettings()
        stream = service().get_streaming_chat_message_content(history({"text": "one two three", "delay_ms": 100}), settings)
        return [str(piece) async for piece in stream]

    pieces = [piece for piece in asyncio.run(run()) if piece]
    same(pieces, ["one ", "two ", "three"])


@check
def semantic_kernel_tool_loop():
    weather = Weather()
    kernel = Kernel()
    kernel.add_plugin(weather, "weather")
    settings = OpenAIChatPromptExecutionSettings(function_choice_behavior=FunctionChoiceBehavior.Auto())
    call = {"calls": [{"name": "weather-get_weather", "arguments": {"city": "Rome"}}]}
    messages = history(call, {"text": "It is warm."})
    got = asyncio.run(service().get_chat_message_content(messages, settings, kernel=kernel))
    same((str(got), weather.seen), ("It is warm.", ["Rome"]))


@check
def semantic_kernel_typed_answer():
    settings = OpenAIChatPromptExecutionSettings(response_format=Person)
    messages = ChatHistory()
    messages.add_user_message("Who?")
    got = asyncio.run(service().get_chat_message_content(messages, settings))
    Person.model_validate_json(str(got))


if __name__ == "__main__":
    checks.main()
