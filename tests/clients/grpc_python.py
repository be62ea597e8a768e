"""grpcio as a client of the gRPC door, with stubs generated from `proto/`.

GRPC_ADDR=127.0.0.1:PORT, API_KEY; MODEL if not gpt-5.5; STUBS_DIR is the folder for the generated code, by default a
temporary one. The server runs on the scripted upstream.
"""

import asyncio
import json
import pathlib
import sys
import tempfile
import time

import grpc
import grpc_tools
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status
from grpc_tools import protoc

import checks
from checks import Skip, check, directive, same, until

ADDRESS = checks.env("GRPC_ADDR")
API_KEY = checks.env("API_KEY", "unused")
MODEL = checks.env("MODEL", "gpt-5.5")
SERVICE = "codex.v1.CodexService"
SECONDS = 60  # The time limit of a call.


def stubs():
    """Generates the stubs and imports them."""
    proto = pathlib.Path(__file__).resolve().parents[2] / "proto"
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    out = checks.env("STUBS_DIR", tempfile.gettempdir() + "/codex-api-stubs")
    pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    options = [f"-I{proto}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
    code = protoc.main(["protoc", *options, *(str(path) for path in proto.glob("codex/v1/*.proto"))])
    if code != 0:
        sys.exit(f"protoc exited with {code}")
    sys.path.insert(0, out)
    from codex.v1 import codex_pb2, codex_pb2_grpc, responses_pb2, responses_pb2_grpc

    return codex_pb2, codex_pb2_grpc, responses_pb2, responses_pb2_grpc


pb, pb_grpc, items, items_grpc = stubs()
BEARER = (("authorization", f"Bearer {API_KEY}"),)
CHANNEL = grpc.insecure_channel(ADDRESS)
STUB = pb_grpc.CodexServiceStub(CHANNEL)
RESPONSES = items_grpc.ResponsesServiceStub(CHANNEL)
HELLO = {"text": "hello world", "usage": checks.USAGE}


def request(*steps, text="", parts=(), **more):
    all_parts = [*parts, pb.ContentPart(text=text + directive(*steps))]
    return pb.ChatRequest(model=MODEL, messages=[pb.Message(role=pb.ROLE_USER, parts=all_parts)], **more)


def chat(*steps, **more):
    return STUB.Chat(request(*steps, **more), timeout=SECONDS, metadata=BEARER)


def events(*steps, **more):
    return list(STUB.StreamChat(request(*steps, **more), timeout=SECONDS, metadata=BEARER))


def kinds(got):
    return [event.WhichOneof("event") for event in got]


def text_of(got, choice=0):
    return "".join(e.text_delta.text for e in got if e.WhichOneof("event") == "text_delta" and e.choice_index == choice)


def status():
    return STUB.GetStatus(pb.GetStatusRequest(), timeout=10, metadata=BEARER)


def wait_until_idle():
    until("no turn runs any more", lambda: status().running_turns == 0)


def same_usage(usage, times=1):
    wanted = {k: v * times for k, v in checks.USAGE.items()}
    got = (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens, usage.reasoning_output_tokens)
    same(got, (wanted["input"], wanted["cached"], wanted["output"], wanted["reasoning"]), "usage")


def fails(code, call):
    """Calls a function and returns its error with that code; otherwise fails."""
    error = checks.raises(grpc.RpcError, call)
    same((error.code(), bool(error.details())), (code, True), f"code of {error.details()!r}, and whether the message is present")
    return error


def details(error):
    """Returns the details of an error by the names of their types."""
    whole = rpc_status.from_call(error)
    assert whole is not None, "no google.rpc.Status"
    found = {}
    for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
        for detail in whole.details:
            if detail.Is(kind.DESCRIPTOR):
                found[kind.DESCRIPTOR.name] = kind()
                detail.Unpack(found[kind.DESCRIPTOR.name])
    return found


def refused(code, reason, call):
    """Checks code and reason, and returns the details."""
    found = details(fails(code, call))
    info = found["ErrorInfo"]
    same((info.reason, info.domain), (reason, "codex-api"), "ErrorInfo")
    return found


@check
def unary():
    got = chat(HELLO)
    assert got.id.startswith("chatcmpl-"), got.id
    assert abs(got.created_unix_seconds - time.time()) < 300, got.created_unix_seconds
    assert got.system_fingerprint, "no system_fingerprint"
    same((got.model, len(got.choices)), (MODEL, 1))
    choice = got.choices[0]
    same((choice.index, choice.text, choice.finish_reason), (0, "hello world", pb.FINISH_REASON_STOP))
    same_usage(got.usage)


@check
def streamed():
    got = events(HELLO)
    same(kinds(got)[0], "started", "first event")
    same(kinds(got)[-1], "completed", "last event")
    for once in ("started", "choice_finished", "completed"):
        same(kinds(got).count(once), 1, once)
    same([e.sequence_number for e in got], list(range(len(got))), "sequence numbers")
    same(len({e.id for e in got}), 1, "different ids")
    same((got[0].started.model, bool(got[0].started.system_fingerprint)), (MODEL, True))
    same(text_of(got), "hello world", "text")
    same([e.choice_finished.finish_reason for e in got if e.HasField("choice_finished")], [pb.FINISH_REASON_STOP])
    same_usage(got[-1].completed.usage)


@check
def unary_is_the_fold_of_the_stream():
    step = {"messages": [{"text": "first part"}, {"text": "second part"}], "usage": checks.USAGE}
    whole, got = chat(step), events(step)
    same(whole.choices[0].text, "first part\n\nsecond part", "unary text")
    same(text_of(got), whole.choices[0].text, "streamed text")
    same(got[-1].completed.usage, whole.usage, "usage")


@check
def response_is_the_fold_of_its_events():
    step = {"messages": [{"text": "first part"}, {"text": "second part"}], "usage": checks.USAGE}
    message = items.InputMessage(role=pb.ROLE_USER, parts=[pb.ContentPart(text=directive(step))])
    wanted = items.CreateResponseRequest(
        settings=items.ResponseSettings(model=MODEL), input=[items.InputItem(message=message)]
    )
    whole = RESPONSES.CreateResponse(wanted, timeout=SECONDS, metadata=BEARER)
    got = list(RESPONSES.StreamResponse(wanted, timeout=SECONDS, metadata=BEARER))
    numbered = [e for e in got if e.WhichOneof("event") not in ("activity", "notice", "heartbeat")]
    same([e.sequence_number for e in numbered], list(range(len(numbered))), "sequence numbers")
    same(kinds(numbered)[:2], ["created", "in_progress"], "first events")
    last = got[-1].completed
    same([item.message.text for item in whole.output], ["first part", "second part"], "messages")
    same([item.message.text for item in last.output], ["first part", "second part"], "streamed messages")
    same((whole.status, last.usage), (items.RESPONSE_STATUS_COMPLETED, whole.usage))


@check
def much_text():
    same(text_of(events({"tokens": 20_000})) == " ".join(f"tok{i}" for i in range(20_000)), True, "all words in order")


@check
def image():
    picture = pb.ContentPart(image=pb.Image(data=checks.png(), detail="low"))
    got = chat({"echo": True}, parts=[picture])
    same(json.loads(got.choices[0].text)["images"], 1, "images in the upstream request")


@check
def json_schema():
    schema = {
        "type": "object",
        "properties": {"day": {"type": "integer"}, "name": {"type": "string"}},
        "required": ["day", "name"],
        "additionalProperties": False,
    }
    form = pb.ResponseFormat(json_schema=pb.JsonSchemaFormat(name="entry", schema=json.dumps(schema)))
    got = json.loads(chat({"schema_answer": True}, response_format=form).choices[0].text)
    same((type(got["day"]), type(got["name"]), len(got)), (int, str, 2), "types of the instance")


@check
def effort_and_wide_characters():
    got = chat({"echo": True}, text="Grüße, 漢字 and 🦀 ", reasoning_effort="low")
    sent = json.loads(got.choices[0].text)
    same(sent["effort"], "low", "effort")
    assert "Grüße, 漢字 and 🦀" in sent["user"], sent


@check
def choices_stop_and_length():
    got = chat(HELLO, n=2)
    same([(c.index, c.text) for c in got.choices], [(0, "hello world"), (1, "hello world")])
    same_usage(got.usage, times=2)
    both = events(HELLO, n=2)
    same([text_of(both, i) for i in (0, 1)], ["hello world"] * 2, "streamed choices")
    same(kinds(both).count("choice_finished"), 2, "ends of choices")
    cut = chat({"text": "one two STOP three"}, stop=["STOP"]).choices[0]
    same((cut.text, cut.finish_reason), ("one two ", pb.FINISH_REASON_STOP))
    short = chat({"text": "one two three four five"}, max_output_tokens=3).choices[0]
    same((short.text, short.finish_reason), ("one two three", pb.FINISH_REASON_LENGTH))


@check
def models():
    got = STUB.ListModels(pb.ListModelsRequest(), timeout=SECONDS, metadata=BEARER).models
    same([m.is_default for m in got], [True] + [False] * (len(got) - 1), "the first model is the only default")
    same(all(m.id and m.target for m in got), True, "each has an id and a target")
    same([m.id for m in got[1:]], sorted(m.id for m in got[1:]), "the others are sorted by name")


@check
def state():
    got = status()
    same((got.ready, got.reason, got.draining), (True, "", False))
    assert got.engine and got.codex_version and got.server_version, got
    assert got.max_running_turns >= 1, got


@check
def health():
    stub = health_pb2_grpc.HealthStub(CHANNEL)
    serving = health_pb2.HealthCheckResponse.SERVING
    for name in ("", SERVICE):
        got = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10, metadata=BEARER)
        same(got.status, serving, name)
    error = checks.raises(
        grpc.RpcError, stub.Check, health_pb2.HealthCheckRequest(service="no.Such"), timeout=10, metadata=BEARER
    )
    same(error.code(), grpc.StatusCode.NOT_FOUND, "code for an unknown service")
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=10, metadata=BEARER)
    same(next(watch).status, serving, "first response of Watch")
    watch.cancel()


@check
def reflection():
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    for version in ("v1", "v1alpha"):  # Their messages are the same on the wire.
        call = CHANNEL.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        listed, described = list(call(iter(requests), timeout=10, metadata=BEARER))
        names = {service.name for service in listed.list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health"} <= names, (version, names)
        assert described.file_descriptor_response.file_descriptor_proto, version


@check
def error_unauthenticated():
    if API_KEY == "unused":
        raise Skip("the server has no token")
    for metadata in ((), (("authorization", f"Bearer {API_KEY}x"),), (("authorization", API_KEY),)):
        call = lambda: STUB.Chat(request(HELLO), timeout=SECONDS, metadata=metadata)
        refused(grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY", call)
        call = lambda: list(STUB.StreamChat(request(HELLO), timeout=SECONDS, metadata=metadata))
        refused(grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY", call)


@check
def error_invalid_argument():
    def field(message):
        call = lambda: STUB.Chat(message, timeout=SECONDS, metadata=BEARER)
        found = refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_VALUE", call)
        return found["BadRequest"].field_violations[0].field

    same(field(pb.ChatRequest(model=MODEL)), "messages", "field")
    no_role = pb.Message(parts=[pb.ContentPart(text="x")])
    same(field(pb.ChatRequest(messages=[no_role])), "messages[0].role", "field")
    same(field(request(HELLO, stop=["a", "b", "c", "d", "e"])), "stop", "field")
    picture = pb.ContentPart(image=pb.Image(data=b"this is not an image"))
    assert field(request(HELLO, parts=[picture])).startswith("messages[0].parts[0].image"), "field of the image"


@check
def error_prompt_too_large():
    huge = pb.Message(role=pb.ROLE_USER, parts=[pb.ContentPart(text=checks.HUGE)])
    call = lambda: STUB.Chat(pb.ChatRequest(model=MODEL, messages=[huge]), timeout=SECONDS, metadata=BEARER)
    refused(grpc.StatusCode.INVALID_ARGUMENT, "PROMPT_TOO_LARGE", call)


@check
def error_policy_widened():
    agent = pb.AgentOptions(sandbox=pb.AgentOptions.SANDBOX_DANGER_FULL_ACCESS)
    refused(grpc.StatusCode.PERMISSION_DENIED, "POLICY_WIDENED", lambda: chat(HELLO, agent=agent))


@check
def errors_of_the_upstream():
    code = grpc.StatusCode
    rows = [
        (checks.NO_MODEL, code.NOT_FOUND, "MODEL_NOT_FOUND"),
        (checks.RATE_LIMIT, code.RESOURCE_EXHAUSTED, "RATE_LIMIT_EXCEEDED"),
        (checks.REFUSED, code.INVALID_ARGUMENT, "UPSTREAM_REJECTED"),
        (checks.TOO_LONG, code.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED"),
        ({"status": 500}, code.UNAVAILABLE, "UPSTREAM_UNAVAILABLE"),
        ({"status": 401}, code.FAILED_PRECONDITION, "ENGINE_UNAVAILABLE"),
    ]
    for step, wanted, reason in rows:
        refused(wanted, reason, lambda: chat(step))
        refused(wanted, reason, lambda: events(step))


@check
def error_in_the_middle_of_a_stream():
    got = []

    def consume():
        for event in STUB.StreamChat(request(checks.BREAKS_OFF), timeout=SECONDS, metadata=BEARER):
            got.append(event)

    error = checks.raises(grpc.RpcError, consume)
    assert "flagged" in error.details(), error.details()
    assert text_of(got).startswith("part one"), kinds(got)
    assert "completed" not in kinds(got), kinds(got)


@check
def error_unimplemented():
    call = CHANNEL.unary_unary(f"/{SERVICE}/NoSuchMethod")
    error = checks.raises(grpc.RpcError, call, b"", timeout=10, metadata=BEARER)
    same(error.code(), grpc.StatusCode.UNIMPLEMENTED, "code")


@check
def deadline_of_the_call():
    endless = request(checks.ENDLESS)
    fails(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: STUB.Chat(endless, timeout=1.5, metadata=BEARER))
    wait_until_idle()
    call = lambda: list(STUB.StreamChat(endless, timeout=1.5, metadata=BEARER))
    fails(grpc.StatusCode.DEADLINE_EXCEEDED, call)
    wait_until_idle()


@check
def deadline_in_the_request():
    endless = request(checks.ENDLESS)
    endless.timeout.FromMilliseconds(1500)
    call = lambda: STUB.Chat(endless, timeout=SECONDS, metadata=BEARER)
    refused(grpc.StatusCode.DEADLINE_EXCEEDED, "TIMEOUT", call)
    call = lambda: list(STUB.StreamChat(endless, timeout=SECONDS, metadata=BEARER))
    refused(grpc.StatusCode.DEADLINE_EXCEEDED, "TIMEOUT", call)
    wait_until_idle()


@check
def cancel():
    got = []
    call = STUB.StreamChat(request(checks.ENDLESS), timeout=SECONDS, metadata=BEARER)

    def consume():
        for event in call:
            got.append(event)
            if text_of(got) == "the beginning":
                assert status().running_turns >= 1, "the turn is not counted as running"
                call.cancel()

    error = checks.raises(grpc.RpcError, consume)
    same(error.code(), grpc.StatusCode.CANCELLED, "code")
    same(text_of(got), "the beginning", "received text")
    wait_until_idle()
    same(chat(HELLO).choices[0].text, "hello world", "the next turn")


@check
def cancel_of_an_asyncio_call():
    async def cancelled():
        async with grpc.aio.insecure_channel(ADDRESS) as channel:
            call = pb_grpc.CodexServiceStub(channel).StreamChat(
                request(checks.ENDLESS), timeout=SECONDS, metadata=BEARER
            )
            async for event in call:
                if event.HasField("text_delta"):
                    call.cancel()
                    break
            return await call.code()

    same(asyncio.run(cancelled()), grpc.StatusCode.CANCELLED, "code")
    wait_until_idle()


@check
def many_at_once():
    calls = [
        STUB.Chat.future(request({"text": f"answer {i}"}), timeout=SECONDS, metadata=BEARER) for i in range(6)
    ]
    same([call.result().choices[0].text for call in calls], [f"answer {i}" for i in range(6)], "answers")


if __name__ == "__main__":
    checks.main()
