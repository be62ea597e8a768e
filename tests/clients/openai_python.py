"""The official openai-python as a client of the HTTP door.

BASE_URL=http://127.0.0.1:PORT/v1, API_KEY; MODEL if not gpt-5.5. The server runs on the scripted upstream.
"""

import asyncio
import base64
import json
import time

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

import checks
from checks import Skip, check, directive, raises, same, until

BASE_URL = checks.env("BASE_URL")
API_KEY = checks.env("API_KEY", "unused")
MODEL = checks.env("MODEL", "gpt-5.5")
OPTIONS = {"base_url": BASE_URL, "api_key": API_KEY, "max_retries": 0, "timeout": 60}
CLIENT = OpenAI(**OPTIONS)
HELLO = {"text": "hello world", "usage": checks.USAGE}


def user(*steps, text=""):
    return [{"role": "user", "content": text + directive(*steps)}]


def create(*steps, **more):
    return CLIENT.chat.completions.create(model=MODEL, messages=user(*steps), **more)


def content_of(completion):
    return completion.choices[0].message.content


def text_of(chunks):
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def running_turns():
    return checks.health(BASE_URL)["running"]


def wait_until_idle():
    until("no turn runs any more", lambda: running_turns() == 0)


def same_usage(usage, times=1):
    wanted = {k: v * times for k, v in checks.USAGE.items()}
    same(usage.prompt_tokens, wanted["input"], "prompt_tokens")
    same(usage.completion_tokens, wanted["output"], "completion_tokens")
    same(usage.total_tokens, wanted["input"] + wanted["output"], "total_tokens")
    same(usage.prompt_tokens_details.cached_tokens, wanted["cached"], "cached_tokens")
    same(usage.completion_tokens_details.reasoning_tokens, wanted["reasoning"], "reasoning_tokens")


@check
def chat():
    got = create(HELLO)
    same(content_of(got), "hello world", "content")
    same((got.object, got.model, len(got.choices)), ("chat.completion", MODEL, 1))
    assert got.id.startswith("chatcmpl-"), got.id
    assert abs(got.created - time.time()) < 300, got.created
    assert got.system_fingerprint, "no system_fingerprint"
    choice = got.choices[0]
    same((choice.index, choice.finish_reason, choice.logprobs), (0, "stop", None))
    same((choice.message.role, choice.message.refusal), ("assistant", None))
    same_usage(got.usage)


@check
def notices_are_compatible_with_the_sdk():
    # Codex warns about an unknown model.
    options = {"model": "an-unknown-model", "messages": user(HELLO)}
    got = CLIENT.chat.completions.create(**options)
    same(content_of(got), "hello world", "content")
    kinds = [notice["kind"] for notice in got.model_extra["codex"]["notices"]]
    assert "warning" in kinds, got
    same(text_of(CLIENT.chat.completions.create(**options, stream=True)), "hello world", "streamed content")
    asking = {"x-codex-notices": "1"}
    same(text_of(CLIENT.chat.completions.create(**options, stream=True, extra_headers=asking)), "hello world", "content")
    raw = CLIENT.chat.completions.with_raw_response.create(**options, stream=True, extra_headers=asking)
    assert ': notice {"kind":"warning"' in raw.http_response.read().decode(), "the stream has the notice"


@check
def chat_has_null_members():
    raw = CLIENT.chat.completions.with_raw_response.create(model=MODEL, messages=user(HELLO))
    choice = json.loads(raw.text if isinstance(raw.text, str) else raw.text())["choices"][0]
    assert "logprobs" in choice and choice["logprobs"] is None, choice
    assert "refusal" in choice["message"] and choice["message"]["refusal"] is None, choice


@check
def conversation_with_wide_characters():
    text = "Grüße, 漢字 and 🦀 — "
    got = CLIENT.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
            {"role": "user", "content": "first", "name": "ann"},
            {"role": "assistant", "content": "an answer"},
            {"role": "user", "content": [{"type": "text", "text": text}, {"type": "text", "text": directive({"echo": True})}]},
        ],
    )
    assert text.strip() in json.loads(content_of(got))["user"], content_of(got)


@check
def chat_of_several_messages_is_equal_when_streamed():
    step = {"messages": [{"text": "first part"}, {"text": "second part"}], "usage": checks.USAGE}
    whole = content_of(create(step))
    same(whole, "first part\n\nsecond part", "unary")
    same(text_of(create(step, stream=True)), whole, "streamed")


@check
def stream():
    chunks = list(create(HELLO, stream=True))
    same(text_of(chunks), "hello world", "text")
    same({c.object for c in chunks}, {"chat.completion.chunk"}, "object")
    same({c.model for c in chunks}, {MODEL}, "model")
    same(len({(c.id, c.created) for c in chunks}), 1, "different ids or times")
    assert chunks[0].id.startswith("chatcmpl-"), chunks[0].id
    same(chunks[0].choices[0].delta.role, "assistant", "role of the first chunk")
    same([c.choices[0].delta.role for c in chunks[1:] if c.choices[0].delta.role], [], "further roles")
    reasons = [c.choices[0].finish_reason for c in chunks]
    same((reasons[-1], [r for r in reasons if r]), ("stop", ["stop"]), "finish_reason")
    same([c.usage for c in chunks if c.usage], [], "usage that was not requested")


@check
def stream_with_usage():
    chunks = list(create(HELLO, stream=True, stream_options={"include_usage": True}))
    same(text_of(chunks), "hello world", "text")
    same(chunks[-1].choices, [], "choices of the usage chunk")
    same_usage(chunks[-1].usage)
    same([c.usage for c in chunks[:-1] if c.usage], [], "usage in other chunks")
    same(chunks[-2].choices[0].finish_reason, "stop", "finish_reason before it")


@check
def stream_helper():
    with CLIENT.chat.completions.stream(model=MODEL, messages=user(HELLO)) as events:
        kinds = [event.type for event in events]
        final = events.get_final_completion()
    assert "content.delta" in kinds and "content.done" in kinds, kinds
    same(content_of(final), "hello world", "final content")


@check
def stream_of_much_text():
    text = text_of(create({"tokens": 20_000}, stream=True))
    same(text == " ".join(f"tok{i}" for i in range(20_000)), True, "20,000 words in order")


@check
def vision():
    url = "data:image/png;base64," + base64.b64encode(checks.png()).decode()
    parts = [
        {"type": "text", "text": "What is it? " + directive({"echo": True})},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
    ]
    got = CLIENT.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
    same(json.loads(content_of(got))["images"], 1, "images in the upstream request")


def bad_image(url):
    parts = [{"type": "text", "text": directive(HELLO)}, {"type": "image_url", "image_url": {"url": url}}]
    call = CLIENT.chat.completions.create
    return raises(openai.BadRequestError, call, model=MODEL, messages=[{"role": "user", "content": parts}])


@check
def vision_refuses_remote_images():
    error = bad_image("https://example.com/a.png")
    assert "image_url" in (error.param or ""), error.param


@check
def vision_refuses_invalid_image_data():
    error = bad_image("data:image/png;base64," + base64.b64encode(b"this is not an image").decode())
    assert "image_url" in (error.param or ""), error.param


class Entry(BaseModel):
    name: str
    day: int
    tags: list[str]


@check
def parse():
    messages = user({"schema_answer": True})
    got = CLIENT.chat.completions.parse(model=MODEL, messages=messages, response_format=Entry)
    entry = got.choices[0].message.parsed
    assert isinstance(entry, Entry), entry


@check
def parse_sends_the_schema():
    step = {"messages": [{"text": "Let me see.", "phase": "commentary"}, {"text": '{"name":"a","day":2,"tags":["b"]}'}]}
    got = CLIENT.chat.completions.parse(model=MODEL, messages=user(step), response_format=Entry)
    same(got.choices[0].message.parsed, Entry(name="a", day=2, tags=["b"]), "the last message alone")
    schema = Entry.model_json_schema() | {"additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "entry", "strict": True, "schema": schema}}
    sent = json.loads(content_of(create({"echo": True}, response_format=form)))
    same(sent["format"]["schema"]["properties"]["day"]["type"], "integer", "the schema in the upstream request")


@check
def json_object():
    got = create({"text": '{"a": 1}'}, response_format={"type": "json_object"})
    same(json.loads(content_of(got)), {"a": 1}, "content")


@check
def reasoning_effort_reaches_the_upstream():
    for effort in ("low", "high"):
        same(json.loads(content_of(create({"echo": True}, reasoning_effort=effort)))["effort"], effort, "effort")


@check
def reasoning_is_not_in_the_content():
    same(content_of(create({"reasoning": "thinking hard", "text": "done"})), "done", "content")


@check
def several_choices():
    got = create(HELLO, n=2)
    same([(c.index, c.message.content, c.finish_reason) for c in got.choices], [(i, "hello world", "stop") for i in (0, 1)])
    same_usage(got.usage, times=2)


@check
def several_choices_streamed():
    texts, ends = {}, {}
    for chunk in create(HELLO, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason:
                same(choice.index in ends, False, "a second finish_reason")
                ends[choice.index] = choice.finish_reason
    same((texts, ends), ({0: "hello world", 1: "hello world"}, {0: "stop", 1: "stop"}))


@check
def stop():
    for texts in ("STOP", ["never", "STOP"]):
        got = create({"text": "one two STOP three"}, stop=texts)
        same((content_of(got), got.choices[0].finish_reason), ("one two ", "stop"))
    same(text_of(create({"text": "one two STOP three"}, stop="STOP", stream=True)), "one two ", "streamed")


@check
def max_tokens():
    for name in ("max_tokens", "max_completion_tokens"):
        got = create({"text": "one two three four five six"}, **{name: 3})
        same((content_of(got), got.choices[0].finish_reason), ("one two three", "length"), name)
    whole = create({"text": "one two three"}, max_completion_tokens=50)
    same((content_of(whole), whole.choices[0].finish_reason), ("one two three", "stop"), "limit not reached")


@check
def headers():
    raw = CLIENT.chat.completions.with_raw_response.create(
        model=MODEL, messages=user(HELLO), temperature=0.5, seed=7, extra_headers={"X-Request-Id": "from-the-client-1"}
    )
    same(raw.headers.get("x-request-id"), "from-the-client-1", "x-request-id")
    ignored = {word.strip() for word in raw.headers.get("x-codex-ignored-params", "").split(",")}
    same(ignored, {"temperature", "seed"}, "x-codex-ignored-params")
    same(raw.headers.get("content-type", "").split(";")[0], "application/json", "content-type")
    plain = CLIENT.chat.completions.with_raw_response.create(model=MODEL, messages=user(HELLO))
    assert plain.headers.get("x-request-id"), "no generated x-request-id"
    assert "x-codex-ignored-params" not in plain.headers, plain.headers


@check
def headers_of_a_stream():
    call = CLIENT.chat.completions.with_streaming_response.create
    with call(model=MODEL, messages=user(HELLO), stream=True) as response:
        same(response.headers.get("content-type", "").split(";")[0], "text/event-stream", "content-type")
        assert response.headers.get("x-request-id"), "no x-request-id"
        lines = [line for line in response.iter_lines() if line and not line.startswith(":")]
    same(lines[-1], "data: [DONE]", "last line")
    same([line for line in lines if not line.startswith("data: ")], [], "lines that are not data")


@check
def unknown_members_are_tolerated():
    same(content_of(create(HELLO, extra_body={"no_such_member": {"a": 1}}, user="ann")), "hello world", "content")


@check
def models():
    ids = [model.id for model in CLIENT.models.list()]
    assert ids, "no models"
    same(len(ids), len(set(ids)), "duplicate ids")
    for name in ids:
        model = CLIENT.models.retrieve(name)
        same((model.id, model.object), (name, "model"))


@check
def models_unknown():
    error = raises(openai.NotFoundError, CLIENT.models.retrieve, "no-such-model")
    same(error.code, "model_not_found", "code")


@check
def authentication_error():
    if API_KEY == "unused":
        raise Skip("the server has no token")
    for call in (lambda c: c.models.list(), lambda c: c.chat.completions.create(model=MODEL, messages=user(HELLO))):
        error = raises(openai.AuthenticationError, call, CLIENT.with_options(api_key=API_KEY + "x"))
        same((error.code, error.type), ("invalid_api_key", "invalid_request_error"))


@check
def bad_request_error():
    error = raises(openai.BadRequestError, CLIENT.chat.completions.create, model=MODEL, messages=[])
    same((error.type, error.param), ("invalid_request_error", "messages"))
    assert error.request_id, "no request id"
    for name, value in (("n", 0), ("logprobs", True), ("stop", ["a", "b", "c", "d", "e"]), ("max_tokens", 1.5)):
        same(raises(openai.BadRequestError, create, HELLO, **{name: value}).param, name, f"param of {name}={value}")


@check
def bad_request_error_of_the_upstream():
    error = raises(openai.BadRequestError, create, checks.REFUSED)
    assert "the upstream refuses this" in str(error), error


@check
def bad_request_error_for_a_long_context():
    same(raises(openai.BadRequestError, create, checks.TOO_LONG).code, "context_length_exceeded", "code")


@check
def too_large_prompt():
    messages = [{"role": "user", "content": checks.HUGE}]
    error = raises(openai.APIStatusError, CLIENT.chat.completions.create, model=MODEL, messages=messages)
    same((error.status_code, error.code), (413, "context_length_exceeded"))


@check
def not_found_error():
    error = raises(openai.NotFoundError, create, checks.NO_MODEL)
    same((error.code, error.type), ("model_not_found", "invalid_request_error"))


@check
def not_found_error_of_a_route():
    error = raises(openai.NotFoundError, CLIENT.embeddings.create, model=MODEL, input="x")
    same(error.code, "unknown_url", "code")


@check
def rate_limit_error():
    same(raises(openai.RateLimitError, create, checks.RATE_LIMIT).code, "rate_limit_exceeded", "code")


@check
def internal_server_error():
    error = raises(openai.InternalServerError, create, {"status": 500})
    same((error.status_code, error.type), (503, "server_error"))
    same(error.response.headers.get("x-should-retry"), None, "x-should-retry")
    same(error.response.headers.get("retry-after"), "5", "retry-after")


@check
def errors_end_a_stream():
    error = raises(openai.APIError, lambda: list(create(checks.RATE_LIMIT, stream=True)))
    same(error.code, "rate_limit_exceeded", "code")
    error = raises(openai.APIError, lambda: list(create(checks.NO_MODEL, stream=True)))
    same(error.code, "model_not_found", "code")


@check
def errors_in_the_middle_of_a_stream():
    chunks = []

    def consume():
        for chunk in create(checks.BREAKS_OFF, stream=True):
            chunks.append(chunk)

    error = raises(openai.APIError, consume)
    assert text_of(chunks).startswith("part one"), text_of(chunks)
    same([c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason], [], "finish_reason")
    assert "flagged" in str(error), error


@check
def cancel_of_a_stream():
    chunks = create(checks.ENDLESS, stream=True)
    for chunk in chunks:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    assert running_turns() >= 1, "the turn is not counted as running"
    chunks.close()
    wait_until_idle()
    same(content_of(create(HELLO)), "hello world", "the next turn")


@check
def cancel_of_an_async_stream():
    async def cancelled():
        async with AsyncOpenAI(**OPTIONS) as client:
            started = asyncio.get_running_loop().create_future()

            async def consume():
                chunks = await client.chat.completions.create(model=MODEL, messages=user(checks.ENDLESS), stream=True)
                async for chunk in chunks:
                    if chunk.choices and chunk.choices[0].delta.content and not started.done():
                        started.set_result(None)

            task = asyncio.create_task(consume())
            await asyncio.wait({task, started}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                return started.done()
            return False

    same(asyncio.run(cancelled()), True, "cancelled after the first text")
    wait_until_idle()


@check
def many_at_once():
    async def gather_all():
        async with AsyncOpenAI(**OPTIONS) as client:
            calls = [
                client.chat.completions.create(model=MODEL, messages=user({"text": f"answer {i}"})) for i in range(6)
            ]
            return [content_of(got) for got in await asyncio.gather(*calls)]

    same(asyncio.run(gather_all()), [f"answer {i}" for i in range(6)], "answers")


def respond(*steps, **more):
    return CLIENT.responses.create(model=MODEL, input=user(*steps), **more)


def same_response_usage(usage):
    same((usage.input_tokens, usage.output_tokens), (checks.USAGE["input"], checks.USAGE["output"]), "usage")
    same(usage.input_tokens_details.cached_tokens, checks.USAGE["cached"], "cached_tokens")
    same(usage.output_tokens_details.reasoning_tokens, checks.USAGE["reasoning"], "reasoning_tokens")


@check
def legacy_completion():
    prompt = "A text. " + directive(HELLO)
    got = CLIENT.completions.create(model=MODEL, prompt=prompt)
    same((got.choices[0].text, got.choices[0].finish_reason, got.object), ("hello world", "stop", "text_completion"))
    chunks = list(CLIENT.completions.create(model=MODEL, prompt=prompt, stream=True))
    same("".join(chunk.choices[0].text for chunk in chunks), "hello world", "streamed text")


@check
def response():
    got = respond(HELLO, instructions="Be brief.", metadata={"k": "v"})
    same((got.output_text, got.status, got.object, got.error), ("hello world", "completed", "response", None))
    assert got.id.startswith("resp_"), got.id
    same((got.instructions, got.metadata, got.store), ("Be brief.", {"k": "v"}, False))
    same_response_usage(got.usage)
    type(got).model_validate(got.model_dump(), strict=False)


@check
def response_streamed_by_the_strict_accumulator():
    step = {"messages": [{"text": "first part"}, {"text": "second part"}], "usage": checks.USAGE}
    with CLIENT.responses.stream(model=MODEL, input=user(step)) as events:
        kinds = [event.type for event in events]
        final = events.get_final_response()
    same(kinds[:2], ["response.created", "response.in_progress"], "first events")
    same(kinds[-1], "response.completed", "last event")
    texts = [item.content[0].text for item in final.output]
    same(texts, ["first part", "second part"], "messages")
    same_response_usage(final.usage)


@check
def response_parsed():
    entry = {"text": json.dumps({"name": "a", "day": 2, "tags": ["b"]})}
    got = CLIENT.responses.parse(model=MODEL, input=user(entry), text_format=Entry)
    same(got.output_parsed, Entry(name="a", day=2, tags=["b"]), "parsed")


@check
def response_of_a_conversation():
    first = respond({"text": "one"})
    items = [*user({"text": "one"}), *[item.model_dump() for item in first.output], *user({"text": "two"})]
    same(CLIENT.responses.create(model=MODEL, input=items).output_text, "two", "text")


@check
def response_that_fails():
    raises(openai.BadRequestError, respond, checks.REFUSED)
    error = raises(openai.BadRequestError, respond, HELLO, previous_response_id="resp_1")
    same(error.param, "previous_response_id", "param")
    error = raises(openai.BadRequestError, respond, HELLO, max_output_tokens="x")
    same(error.param, "max_output_tokens", "param")
    events = respond(checks.BREAKS_OFF, stream=True)
    raises(openai.APIError, list, events)


@check
def response_that_is_cut():
    got = respond({"tokens": 200}, max_output_tokens=3)
    same((got.status, got.incomplete_details.reason), ("incomplete", "max_output_tokens"))


@check
def response_whose_client_leaves():
    events = respond(checks.ENDLESS, stream=True)
    for event in events:
        if event.type == "response.output_text.delta":
            break
    events.close()
    wait_until_idle()


if __name__ == "__main__":
    checks.main()
