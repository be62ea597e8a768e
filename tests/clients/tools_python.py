"""Tool loops of the official openai-python.

BASE_URL=http://127.0.0.1:PORT/v1, API_KEY; MODEL if not gpt-5.5. The server runs on the scripted upstream, with an
engine that has client tools. BASE_URL_RESTARTED is a second server with an empty cache,
like the first one after a restart.
"""

import asyncio
import json

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

import checks
from checks import Skip, check, directive, raises, same

BASE_URL = checks.env("BASE_URL")
API_KEY = checks.env("API_KEY", "unused")
MODEL = checks.env("MODEL", "gpt-5.5")
OPTIONS = {"base_url": BASE_URL, "api_key": API_KEY, "max_retries": 0, "timeout": 60}
CLIENT = OpenAI(**OPTIONS)


class GetWeather(BaseModel):
    """Returns the weather."""

    city: str
    days: int


class GetTime(BaseModel):
    """Returns the time."""

    zone: str


TOOLS = [openai.pydantic_function_tool(GetWeather), openai.pydantic_function_tool(GetTime)]
ROME = {"name": "GetWeather", "arguments": {"city": "Rome", "days": 2}}
OSLO = {"name": "GetWeather", "arguments": {"city": "Oslo", "days": 1}}
TIME = {"name": "GetTime", "arguments": {"zone": "CET"}}
DONE = {"text": "It is warm.", "usage": checks.USAGE}


def user(*steps):
    return [{"role": "user", "content": directive(*steps)}]


def calling(*calls, **more):
    return {"calls": list(calls), "usage": checks.USAGE, **more}


def run(call):
    """Runs a client function and returns its result."""
    arguments = json.loads(call.function.arguments)
    if call.function.name == "GetWeather":
        weather = GetWeather(**arguments)
        return f"{weather.city}: 25 C for {weather.days} days"
    same(call.function.name, "GetTime")
    return f"{GetTime(**arguments).zone}: noon"


def with_results(message):
    """Returns the assistant message and the results of its calls."""
    results = [{"role": "tool", "tool_call_id": call.id, "content": run(call)} for call in message.tool_calls]
    return [message, *results]


def loop(messages, client=CLIENT, rounds=10, **more):
    """Runs the tool loop until the model makes no more calls; returns all answers in order."""
    answers = []
    for _ in range(rounds):
        got = client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS, **more)
        answers.append(got)
        if got.choices[0].finish_reason != "tool_calls":
            return answers
        messages = [*messages, *with_results(got.choices[0].message)]
    raise AssertionError("the model makes calls in every round")


def called(message):
    return [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or []]


def wanted(*calls):
    return [(call["name"], call["arguments"]) for call in calls]


def same_usage(usage):
    same((usage.prompt_tokens, usage.completion_tokens), (checks.USAGE["input"], checks.USAGE["output"]), "usage")
    same(usage.total_tokens, checks.USAGE["input"] + checks.USAGE["output"], "total")


@check
def single_call():
    first, last = loop(user(calling(ROME), DONE))
    choice = first.choices[0]
    same((choice.finish_reason, choice.message.content), ("tool_calls", None))
    same(called(choice.message), wanted(ROME))
    same(choice.message.tool_calls[0].type, "function")
    same_usage(first.usage)
    same((last.choices[0].finish_reason, last.choices[0].message.content), ("stop", "It is warm."))
    same(last.choices[0].message.tool_calls, None)
    same_usage(last.usage)


@check
def text_beside_a_call():
    first, last = loop(user(calling(ROME, text="Let me look.", reasoning="hm"), DONE))
    same(first.choices[0].message.content, "Let me look.")
    same(last.choices[0].message.content, "It is warm.")


@check
def parallel_calls():
    first, last = loop(user(calling(ROME, TIME, OSLO), DONE))
    same(called(first.choices[0].message), wanted(ROME, TIME, OSLO))
    same(len({call.id for call in first.choices[0].message.tool_calls}), 3, "ids")
    same(last.choices[0].message.content, "It is warm.")


@check
def one_call_at_a_time():
    first, last = loop(user(calling(ROME, OSLO), DONE), parallel_tool_calls=False)
    same(called(first.choices[0].message), wanted(ROME))
    same(last.choices[0].message.content, "It is warm.")


@check
def several_rounds():
    steps = [calling(ROME, reasoning="one"), calling(OSLO, TIME, text="And now?"), calling(TIME), DONE]
    answers = loop(user(*steps))
    same([called(a.choices[0].message) for a in answers], [wanted(ROME), wanted(OSLO, TIME), wanted(TIME), []])
    same(answers[-1].choices[0].message.content, "It is warm.")


@check
def upstream_input_has_calls_and_results():
    # The second answer echoes the items that reached the model, in order.
    _, last = loop(user(calling(ROME, TIME, text="Wait.", reasoning="hm"), {"echo": True}))
    sent = json.loads(last.choices[0].message.content)
    wanted_items = ["user", "reasoning", "assistant", *["function_call"] * 2, *["function_call_output"] * 2]
    same(sent["items"][-7:], wanted_items, "items")
    same([name for name in sent["tools"] if name.startswith("Get")], ["GetWeather", "GetTime"], "tools")


@check
def tool_choice_selects_the_call():
    named = {"type": "function", "function": {"name": "GetTime"}}
    for choice, calls in [("auto", [ROME]), ("required", [ROME]), (named, [TIME])]:
        got = CLIENT.chat.completions.create(
            model=MODEL, messages=user(calling(*calls)), tools=TOOLS, tool_choice=choice
        )
        same(called(got.choices[0].message), wanted(*calls), str(choice))
    got = CLIENT.chat.completions.create(model=MODEL, messages=user(DONE), tools=TOOLS, tool_choice="none")
    same((got.choices[0].finish_reason, got.choices[0].message.tool_calls), ("stop", None))


@check
def required_without_a_call_fails():
    error = raises(
        openai.InternalServerError,
        CLIENT.chat.completions.create,
        model=MODEL,
        messages=user(DONE),
        tools=TOOLS,
        tool_choice="required",
    )
    same((error.status_code, error.code), (502, "turn_failed"))
    assert "tool_choice requires a tool call" in str(error), error


@check
def strict_arguments_are_corrected():
    wrong = {"name": "GetWeather", "arguments": {"city": "Rome", "days": "two"}}
    completion = CLIENT.chat.completions.parse(
        model=MODEL, messages=user(calling(wrong), calling(ROME)), tools=TOOLS
    )
    calls = completion.choices[0].message.tool_calls
    same([call.function.parsed_arguments for call in calls], [GetWeather(city="Rome", days=2)])


@check
def streamed_deltas_by_index():
    steps = calling(ROME, TIME, text="Let me look.")
    chunks = CLIENT.chat.completions.create(
        model=MODEL, messages=user(steps), tools=TOOLS, stream=True, stream_options={"include_usage": True}
    )
    calls, text, reasons, usage = {}, "", [], None
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
            for delta in choice.delta.tool_calls or []:
                call = calls.setdefault(delta.index, {"id": "", "name": "", "arguments": ""})
                call["id"] += delta.id or ""
                call["name"] += delta.function.name or ""
                call["arguments"] += delta.function.arguments or ""
    same((text, reasons, sorted(calls)), ("Let me look.", ["tool_calls"], [0, 1]))
    same([(c["name"], json.loads(c["arguments"])) for _, c in sorted(calls.items())], wanted(ROME, TIME))
    assert all(call["id"].startswith("call_") for call in calls.values()), calls
    same_usage(usage)


@check
def stream_helper():
    messages = user(calling(ROME, TIME, text="Let me look."), {"echo": True})
    with CLIENT.chat.completions.stream(model=MODEL, messages=messages, tools=TOOLS) as events:
        all_events = list(events)
        final = events.get_final_completion()
    done = [event for event in all_events if event.type == "tool_calls.function.arguments.done"]
    same([(event.name, event.index) for event in done], [("GetWeather", 0), ("GetTime", 1)])
    same([event.parsed_arguments for event in done], [GetWeather(city="Rome", days=2), GetTime(zone="CET")])
    deltas = [e for e in all_events if e.type == "tool_calls.function.arguments.delta"]
    same("".join(e.arguments_delta for e in deltas if e.index == 1), done[1].arguments)
    choice = final.choices[0]
    same((choice.finish_reason, choice.message.content), ("tool_calls", "Let me look."))
    same(called(choice.message), wanted(ROME, TIME))

    more = [*messages, *with_results(choice.message)]
    with CLIENT.chat.completions.stream(model=MODEL, messages=more, tools=TOOLS) as events:
        final = events.get_final_completion()
    sent = json.loads(final.choices[0].message.content)
    same(sent["items"][-6:], ["user", "assistant", *["function_call"] * 2, *["function_call_output"] * 2])


@check
def results_after_a_restart():
    restarted = checks.env("BASE_URL_RESTARTED", "none")
    if restarted == "none":
        raise Skip("BASE_URL_RESTARTED is not set")
    messages = user(calling(ROME, TIME, reasoning="forgotten", text="Let me look."), {"echo": True})
    client = OpenAI(**OPTIONS | {"base_url": restarted})
    for stream in (False, True):
        if stream:
            with CLIENT.chat.completions.stream(model=MODEL, messages=messages, tools=TOOLS) as events:
                first = events.get_final_completion()
        else:
            first = CLIENT.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)
        last = loop([*messages, *with_results(first.choices[0].message)], client)[-1]
        sent = json.loads(last.choices[0].message.content)
        wanted_items = ["user", "assistant", *["function_call"] * 2, *["function_call_output"] * 2]
        same(sent["items"][-6:], wanted_items, "items")
        assert "reasoning" not in sent["items"], sent["items"]


@check
def concurrent_loops():
    async def one(client, number):
        messages = user(calling({"name": "GetTime", "arguments": {"zone": f"Z{number}"}}), {"text": f"done {number}"})
        first = await client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)
        message = first.choices[0].message
        same(called(message), [("GetTime", {"zone": f"Z{number}"})])
        last = await client.chat.completions.create(model=MODEL, messages=[*messages, *with_results(message)], tools=TOOLS)
        return last.choices[0].message.content

    async def gather_all():
        async with AsyncOpenAI(**OPTIONS) as client:
            return await asyncio.gather(*(one(client, number) for number in range(12)))

    same(asyncio.run(gather_all()), [f"done {number}" for number in range(12)])


@check
def results_without_a_call_are_refused():
    messages = user(calling(ROME, TIME), DONE)
    first = CLIENT.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS)
    message, one, other = with_results(first.choices[0].message)
    create = CLIENT.chat.completions.create
    for history, param in [
        ([message, one], "messages[1].tool_calls[1]"),
        ([message, one, other, one], "messages[4].tool_call_id"),
        ([one], "messages[1].tool_call_id"),
    ]:
        error = raises(openai.BadRequestError, create, model=MODEL, messages=[*messages, *history], tools=TOOLS)
        same(error.param, param)


RESPONSE_TOOLS = [{"type": "function", **tool["function"]} for tool in TOOLS]


def outputs(response):
    """Runs the calls of a response and returns their outputs as items."""
    found = []
    for item in response.output:
        if item.type != "function_call":
            continue
        arguments = json.loads(item.arguments)
        text = f"{arguments['city']}: 25 C" if item.name == "GetWeather" else f"{arguments['zone']}: noon"
        found.append({"type": "function_call_output", "call_id": item.call_id, "output": text})
    return found


@check
def responses_loop():
    for stream in (False, True):
        items = user(calling(ROME, TIME, text="Let me look."), calling(OSLO), {"echo": True})
        for wanted in (["message", "function_call", "function_call"], ["function_call"], ["message"]):
            if stream:
                with CLIENT.responses.stream(model=MODEL, input=items, tools=RESPONSE_TOOLS) as events:
                    list(events)
                    got = events.get_final_response()
            else:
                got = CLIENT.responses.create(model=MODEL, input=items, tools=RESPONSE_TOOLS)
            same([item.type for item in got.output], wanted, "items")
            # As the Agents SDK does it: the items of the response, as they are.
            items = [*items, *[item.model_dump(exclude_unset=True) for item in got.output], *outputs(got)]
        sent = json.loads(got.output_text)
        assert sent["items"][-3:] == ["function_call_output", "function_call", "function_call_output"], sent["items"]


@check
def responses_outputs_after_a_restart():
    restarted = checks.env("BASE_URL_RESTARTED", "none")
    if restarted == "none":
        raise Skip("BASE_URL_RESTARTED is not set")
    items = user(calling(ROME, TIME), {"echo": True})
    first = CLIENT.responses.create(model=MODEL, input=items, tools=RESPONSE_TOOLS)
    items = [*items, *[item.model_dump(exclude_unset=True) for item in first.output], *outputs(first)]
    client = OpenAI(**OPTIONS | {"base_url": restarted})
    sent = json.loads(client.responses.create(model=MODEL, input=items, tools=RESPONSE_TOOLS).output_text)
    same(sent["items"][-4:], [*["function_call"] * 2, *["function_call_output"] * 2], "items")


@check
def responses_outputs_without_a_call_are_refused():
    output = {"type": "function_call_output", "call_id": "call_1", "output": "x"}
    error = raises(openai.BadRequestError, CLIENT.responses.create, model=MODEL, input=[*user(DONE), output])
    same(error.param, "input[1].call_id", "param")


checks.main()
