"""openai-agents as a client of the HTTP door: agents with functions, over `OpenAIChatCompletionsModel`.

BASE_URL=http://127.0.0.1:PORT/v1, API_KEY; MODEL if not gpt-5.5. The server runs on the scripted upstream, with an
engine that has client tools. BASE_URL_RESTARTED is a second server with an empty cache,
like the first one after a restart.
"""

import asyncio
import json

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

import checks
from checks import check, directive, same

BASE_URL = checks.env("BASE_URL")
API_KEY = checks.env("API_KEY", "unused")
MODEL = checks.env("MODEL", "gpt-5.5")
# The SDK would send traces to OpenAI.
set_tracing_disabled(True)

USAGE = (checks.USAGE["input"], checks.USAGE["output"])
ROME = {"name": "get_weather", "arguments": {"city": "Rome"}}
OSLO = {"name": "get_weather", "arguments": {"city": "Oslo"}}
TIME = {"name": "get_time", "arguments": {"zone": "CET", "seconds": True}}
DONE = {"text": "It is warm.", "usage": checks.USAGE}
CALLED = []
# The clients of the agents, and the server address that the last client uses after its next call.
CLIENTS = []
MOVES = []


@function_tool
def get_weather(city: str) -> str:
    """Returns the weather.

    Args:
        city: The place.
    """
    CALLED.append(("get_weather", city))
    if MOVES:
        CLIENTS[-1].base_url = MOVES.pop()
    return f"{city}: 25 C"


@function_tool
async def get_time(zone: str, seconds: bool = False) -> str:
    """Returns the time."""
    CALLED.append(("get_time", zone, seconds))
    return "12:00:00" if seconds else "12:00"


def calling(*calls, **more):
    return {"calls": list(calls), "usage": checks.USAGE, **more}


def run(*steps, streamed=False, handoffs=(), **options):
    """Runs an agent to its end; returns the result and the arguments of the function calls."""

    settings = options.pop("model_settings", ModelSettings(include_usage=True))

    async def go():
        async with AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY, max_retries=0, timeout=60) as client:
            CLIENTS.append(client)
            model = OpenAIChatCompletionsModel(model=MODEL, openai_client=client)
            agent = Agent(
                name="Helper",
                instructions="Be kind.",
                model=model,
                model_settings=settings,
                tools=[get_weather, get_time],
                handoffs=[expert(model) for expert in handoffs],
                **options,
            )
            if not streamed:
                return await Runner.run(agent, directive(*steps)), []
            result = Runner.run_streamed(agent, directive(*steps))
            return result, [event async for event in result.stream_events()]

    CALLED.clear()
    result, events = asyncio.run(go())
    return result, events, list(CALLED)


def items(result):
    return [item.type for item in result.new_items]


@check
def one_function():
    result, _, called = run(calling(ROME), DONE)
    same((result.final_output, called), ("It is warm.", [("get_weather", "Rome")]))
    same(items(result), ["tool_call_item", "tool_call_output_item", "message_output_item"])
    usage = result.context_wrapper.usage
    same((usage.requests, usage.input_tokens, usage.output_tokens), (2, 2 * USAGE[0], 2 * USAGE[1]))


@check
def two_functions_at_once():
    result, _, called = run(calling(ROME, TIME, text="Let me look."), DONE)
    same(result.final_output, "It is warm.")
    same(sorted(called), [("get_time", "CET", True), ("get_weather", "Rome")])


@check
def several_rounds():
    result, _, called = run(calling(ROME, reasoning="one"), calling(TIME, OSLO), calling(ROME), DONE)
    same((result.final_output, len(result.raw_responses)), ("It is warm.", 4))
    wanted = [("get_weather", "Rome"), ("get_time", "CET", True), ("get_weather", "Oslo"), ("get_weather", "Rome")]
    same(sorted(called), sorted(wanted))


@check
def streamed():
    result, events, called = run(calling(ROME, TIME, text="Let me look."), calling(OSLO), DONE, streamed=True)
    same(result.final_output, "It is warm.")
    same(sorted(called), [("get_time", "CET", True), ("get_weather", "Oslo"), ("get_weather", "Rome")])
    raw = [event.data for event in events if event.type == "raw_response_event"]
    text = "".join(data.delta for data in raw if data.type == "response.output_text.delta")
    same(text, "Let me look.It is warm.")
    arguments = [data for data in raw if data.type == "response.function_call_arguments.delta"]
    assert "Rome" in "".join(data.delta for data in arguments), arguments
    usage = result.context_wrapper.usage
    same((usage.requests, usage.input_tokens, usage.output_tokens), (3, 3 * USAGE[0], 3 * USAGE[1]))


@check
def upstream_input_has_calls_and_results():
    for stream in (False, True):
        step = calling(ROME, TIME, reasoning="hm", text="Wait.")
        result, _, _ = run(step, {"echo": True}, streamed=stream)
        sent = json.loads(result.final_output)
        wanted = ["user", "reasoning", "assistant", *["function_call"] * 2, *["function_call_output"] * 2]
        same(sent["items"][-7:], wanted, f"items, streamed: {stream}")
        same([name for name in sent["tools"] if name.startswith("get_") and name != "get_goal"], ["get_weather", "get_time"])


@check
def required_function_is_called():
    result, _, called = run(calling(TIME), DONE, model_settings=ModelSettings(tool_choice="get_time"))
    same((result.final_output, called), ("It is warm.", [("get_time", "CET", True)]))
    settings = ModelSettings(tool_choice="required", parallel_tool_calls=False)
    result, _, called = run(calling(ROME, OSLO), DONE, model_settings=settings)
    same((result.final_output, called), ("It is warm.", [("get_weather", "Rome")]))


@check
def invalid_arguments_are_corrected():
    wrong = {"name": "get_weather", "arguments": {"town": "Rome"}}
    result, _, called = run(calling(wrong), calling(ROME), DONE)
    same((result.final_output, called), ("It is warm.", [("get_weather", "Rome")]))


@check
def typed_answer_after_calls():
    class Report(BaseModel):
        city: str
        warm: bool

    for stream in (False, True):
        result, _, called = run(calling(ROME), {"schema_answer": True}, streamed=stream, output_type=Report)
        assert isinstance(result.final_output, Report), result.final_output
        same(called, [("get_weather", "Rome")])


@check
def handoff_to_another_agent():
    def expert(model):
        return Agent(name="Expert", instructions="Answer questions about time.", model=model, tools=[get_time])

    handing = {"name": "transfer_to_expert", "arguments": {}}
    for stream in (False, True):
        result, _, called = run(calling(handing), calling(TIME), DONE, streamed=stream, handoffs=[expert])
        same((result.last_agent.name, result.final_output), ("Expert", "It is warm."))
        same(called, [("get_time", "CET", True)])


@check
def results_after_a_restart():
    restarted = checks.env("BASE_URL_RESTARTED", "none")
    if restarted == "none":
        raise checks.Skip("BASE_URL_RESTARTED is not set")
    for stream in (False, True):
        MOVES.append(restarted)
        step = calling(ROME, TIME, reasoning="forgotten", text="Wait.")
        result, _, called = run(step, {"echo": True}, streamed=stream)
        same((MOVES, sorted(called)), ([], [("get_time", "CET", True), ("get_weather", "Rome")]))
        sent = json.loads(result.final_output)
        wanted = ["user", "assistant", *["function_call"] * 2, *["function_call_output"] * 2]
        same(sent["items"][-6:], wanted, f"items, streamed: {stream}")
        assert "reasoning" not in sent["items"], sent["items"]


checks.main()
