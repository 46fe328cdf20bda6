"""Bedrock's own shapes, and the frames in which AWS streams."""

from __future__ import annotations

import base64
import json
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.eventstream import EventStreamParser
from ratekeeper.providers.facts import Endpoint, Kind, Meter, RequestFacts, Usage
from ratekeeper.providers.sse import ServerEvent
from tests.providers.malformed import NOW_US

BEDROCK = find_provider("bedrock")
MODEL = "us.anthropic.claude-sonnet-5-v1%3A0"
STREAM = "application/vnd.amazon.eventstream"
ASK = {
    "messages": [{"role": "user", "content": [{"text": "word " * 80}]}],
    "system": [{"text": "Be brief."}],
    "inferenceConfig": {"maxTokens": 50},
}


def frame(payload: bytes, **fields: str) -> bytes:
    """Write a frame as AWS does."""
    named = b""
    for name, value in fields.items():
        key = f":{name.replace('_', '-')}".encode()
        said = value.encode()
        named += bytes([len(key)]) + key + b"\x07" + struct.pack(">H", len(said)) + said
    return framed(named, payload)


def framed(fields: bytes, payload: bytes) -> bytes:
    lengths = struct.pack(">II", 16 + len(fields) + len(payload), len(fields))
    said = lengths + struct.pack(">I", zlib.crc32(lengths)) + fields + payload
    return said + struct.pack(">I", zlib.crc32(said))


def event(kind: str, value: object) -> bytes:
    return frame(json.dumps(value).encode(), event_type=kind, message_type="event")


def ask(what: str = "converse", body: object = ASK, model: str = MODEL) -> RequestFacts:
    path = f"/model/{model}/{what}"
    return BEDROCK.read_request("POST", path, json.dumps(body).encode())


def fed(facts: RequestFacts, kind: str, *pieces: bytes, step: int = 7) -> Meter:
    meter = BEDROCK.meter(facts, kind)
    body = b"".join(pieces)
    for start in range(0, len(body), step):
        meter.feed(body[start : start + step])
    return meter


def test_a_converse_tells_its_model_in_the_path_and_its_bound_in_the_body() -> None:
    facts = ask("converse-stream")

    assert (Endpoint.CONVERSE, "claude-sonnet-5-v1:0", True, 50) == (
        facts.endpoint,
        facts.model,
        facts.stream,
        facts.max_output,
    )
    assert 80 <= facts.input_tokens <= 180


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("anthropic.claude-opus-5-v1:0", "claude-opus-5-v1:0"),
        ("global.anthropic.claude-opus-5-v1:0", "claude-opus-5-v1:0"),
        ("amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0"),
        (
            "arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2F"
            "eu.anthropic.claude-opus-5-v1%3A0",
            "claude-opus-5-v1:0",
        ),
    ],
)
def test_a_model_is_known_without_its_profile(name: str, model: str) -> None:
    assert model == ask(model=name).model


@pytest.mark.parametrize(
    ("method", "path", "endpoint"),
    [
        ("POST", "/model/m/converse", Endpoint.CONVERSE),
        ("POST", "/model/m/converse-stream", Endpoint.CONVERSE),
        ("POST", "/model/m/invoke", Endpoint.MESSAGES),
        ("POST", "/model/m/invoke-with-response-stream", Endpoint.MESSAGES),
        ("POST", "/openai/v1/chat/completions", Endpoint.CHAT),
        ("GET", "/model/m/converse", Endpoint.OTHER),
        ("POST", "/model/m/apply", Endpoint.OTHER),
        ("POST", "/guardrail/g/version/1/apply", Endpoint.OTHER),
    ],
)
def test_a_path_tells_what_is_asked_for(
    method: str, path: str, endpoint: Endpoint
) -> None:
    assert endpoint is BEDROCK.read_request(method, path, b"{}").endpoint


def test_pictures_and_documents_are_no_text_and_tools_reach_the_model() -> None:
    data = "A" * 40_000
    plain = ask().input_tokens
    for block, least, most in (
        ({"image": {"format": "png", "source": {"bytes": data}}}, 3000, 6000),
        ({"document": {"name": "d", "source": {"bytes": data}}}, 2500, 4500),
        ({"video": {"format": "mp4", "source": {"bytes": data}}}, 2500, 4500),
    ):
        found = ask(body={"messages": [{"role": "user", "content": [block]}]})

        assert least <= found.input_tokens <= most
    tool = {"toolSpec": {"name": "f", "inputSchema": {"json": {}}}}
    with_tools = ask(body={**ASK, "toolConfig": {"tools": [tool]}})

    assert with_tools.input_tokens > plain + 400


def test_the_metadata_of_a_stream_tells_the_usage() -> None:
    usage = {
        "inputTokens": 20,
        "outputTokens": 9,
        "totalTokens": 46,
        "cacheReadInputTokens": 12,
        "cacheWriteInputTokens": 5,
    }
    meter = fed(
        ask("converse-stream"),
        STREAM,
        event("messageStart", {"role": "assistant"}),
        event("contentBlockDelta", {"delta": {"text": "Hello"}}),
        event("messageStop", {"stopReason": "end_turn"}),
        event("metadata", {"usage": usage, "metrics": {"latencyMs": 9}}),
    )

    assert (
        Usage(
            input_tokens=37,
            output_tokens=9,
            cache_read_tokens=12,
            cache_write_tokens=5,
        )
        == meter.usage()
    )
    assert meter.failure(NOW_US) is None


def test_a_whole_answer_tells_its_usage_or_what_it_said() -> None:
    content = [{"text": "x" * 40}, {"toolUse": {"name": "f", "input": {"a": "b"}}}]
    body = {"output": {"message": {"content": content}}}
    usage = {"inputTokens": 20, "outputTokens": 9}
    told = fed(ask(), "application/json", json.dumps({**body, "usage": usage}).encode())
    silent = fed(ask(), "application/json", json.dumps(body).encode())

    assert Usage(input_tokens=20, output_tokens=9) == told.usage()
    assert silent.usage() is None
    assert 10 <= silent.flowed() <= 15


def test_a_stream_cut_short_counts_what_has_flowed() -> None:
    meter = fed(
        ask("converse-stream"),
        STREAM,
        event("contentBlockDelta", {"delta": {"text": "x" * 40}}),
        event(
            "contentBlockDelta",
            {"delta": {"reasoningContent": {"text": "x" * 20}}},
        ),
        event("contentBlockDelta", {"delta": {"toolUse": {"input": "x" * 20}}}),
    )

    assert meter.usage() is None
    assert 20 == meter.flowed()


def test_what_invoke_wraps_is_read_as_anthropics_own() -> None:
    begun = {"input_tokens": 5, "cache_read_input_tokens": 7}
    events = (
        {"type": "message_start", "message": {"usage": begun}},
        {"type": "content_block_delta", "delta": {"text": "Hello"}},
        {"type": "message_delta", "usage": {"output_tokens": 9}},
    )
    wrapped = [
        event("chunk", {"bytes": base64.b64encode(json.dumps(one).encode()).decode()})
        for one in events
    ]
    facts = ask("invoke-with-response-stream", {"messages": [], "max_tokens": 9})

    assert 9 == facts.max_output
    assert (
        Usage(input_tokens=12, output_tokens=9, cache_read_tokens=7)
        == fed(facts, STREAM, *wrapped).usage()
    )


@pytest.mark.parametrize("what", ["converse-stream", "invoke-with-response-stream"])
@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("throttlingException", Kind.THROTTLED),
        ("serviceUnavailableException", Kind.OVERLOADED),
        ("modelStreamErrorException", Kind.TRANSIENT),
        ("internalServerException", Kind.TRANSIENT),
    ],
)
def test_an_exception_in_a_stream_is_an_error(
    what: str, kind: str, verdict: Kind
) -> None:
    said = frame(b'{"message":"No."}', exception_type=kind, message_type="exception")
    failure = fed(ask(what), STREAM, said).failure(NOW_US)

    assert failure is not None
    assert verdict is failure.kind


@pytest.mark.parametrize(
    ("text", "kind", "unit"),
    [
        ("Too many tokens, please wait before trying again.", Kind.THROTTLED, "tokens"),
        (
            "Too many requests, please wait before trying again.",
            Kind.THROTTLED,
            "requests",
        ),
        (
            "Too many tokens per day, please wait before trying again.",
            Kind.STOPPED,
            "tokens",
        ),
        ("Slow.", Kind.THROTTLED, None),
    ],
)
def test_a_throttling_exception_tells_its_limit_in_words(
    text: str, kind: Kind, unit: str | None
) -> None:
    body = json.dumps({"message": text}).encode()
    name = "ThrottlingException:http://internal.amazon.com/coral/"
    verdict = BEDROCK.judge(429, {"x-amzn-ErrorType": name}, body, NOW_US)

    assert (kind, unit, True) == (verdict.kind, verdict.unit, verdict.retry)


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (429, "ModelNotReadyException", Kind.OVERLOADED),
        (503, "ServiceUnavailableException", Kind.OVERLOADED),
        (403, "AccessDeniedException", Kind.FORBIDDEN),
        (400, "ValidationException", Kind.REJECTED),
        (429, "", Kind.THROTTLED),
    ],
)
def test_the_code_of_an_error_is_in_a_header(
    status: int, name: str, kind: Kind
) -> None:
    verdict = BEDROCK.judge(status, {"x-amzn-errortype": name}, b"{}", NOW_US)

    assert kind is verdict.kind


def test_a_refusal_has_awss_shape() -> None:
    _, _, body = BEDROCK.refusal("Wait.", 5, endpoint=Endpoint.CONVERSE)

    assert {"message": "Wait.", "__type": "ThrottlingException"} == json.loads(body)


FRAMES = st.lists(
    st.tuples(st.text("abcXYZ", max_size=20), st.binary(max_size=60)), max_size=6
)


@given(FRAMES, st.integers(1, 50))
def test_frames_are_read_wherever_the_bytes_are_cut(
    frames: list[tuple[str, bytes]], step: int
) -> None:
    body = b"".join(frame(payload, event_type=kind) for kind, payload in frames)
    parser = EventStreamParser()
    found = [
        one
        for start in range(0, len(body), step)
        for one in parser.feed(body[start : start + step])
    ]

    assert [ServerEvent(*one) for one in frames] == found


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_at_all_are_looked_at(pieces: list[bytes]) -> None:
    parser = EventStreamParser()
    for piece in (*pieces, *(framed(piece, piece) for piece in pieces)):
        parser.feed(piece)

    assert parser.dropped >= 0


@given(st.binary(max_size=60), st.binary(max_size=20))
def test_any_headers_at_all_are_read_as_far_as_they_go(
    fields: bytes, payload: bytes
) -> None:
    (found,) = EventStreamParser().feed(framed(fields, payload))

    assert found.type != "chunk" or payload == found.data
    assert payload == found.data


@pytest.mark.parametrize(
    "fields",
    [
        b"\x01a\x00",  # true
        b"\x01a\x01",  # false
        b"\x01a\x02\x05",  # a byte
        b"\x01a\x03\x00\x05",  # a short
        b"\x01a\x04\x00\x00\x00\x05",  # an integer
        b"\x01a\x05" + bytes(8),  # a long
        b"\x01a\x06\x00\x02xx",  # bytes
        b"\x01a\x08" + bytes(8),  # a time
        b"\x01a\x09" + bytes(16),  # a UUID
        b"",
    ],
)
def test_a_header_of_any_type_is_stepped_over(fields: bytes) -> None:
    kind = b"\x0b:event-type\x07\x00\x02hi"
    (found,) = EventStreamParser().feed(framed(fields + kind, b"{}"))

    assert ServerEvent("hi", b"{}") == found


@pytest.mark.parametrize(
    "fields", [b"\x01", b"\x05a", b"\x01a\x0a", b"\x01a\x07", b"\x01a\x07\xff\xffx"]
)
def test_headers_that_break_off_name_nothing(fields: bytes) -> None:
    (found,) = EventStreamParser().feed(framed(fields, b"{}"))

    assert ServerEvent("", b"{}") == found


def test_what_is_no_frame_ends_the_reading() -> None:
    parser = EventStreamParser()
    good = event("metadata", {})
    short = struct.pack(">II", 5, 0)
    bad = short + struct.pack(">I", zlib.crc32(short))

    assert 1 == len(parser.feed(good))
    assert [] == parser.feed(bad)
    assert [] == parser.feed(good)
    assert [] == EventStreamParser().feed(b'{"message":"no frames at all"}' + good)


def test_a_frame_above_the_bound_is_dropped_and_the_next_one_read() -> None:
    large, small = event("contentBlockDelta", {"a": "x" * 500}), event("metadata", {})
    for step in (1, 100, 10_000):
        parser = EventStreamParser(largest=200)
        body = large + small
        found = [
            one
            for start in range(0, len(body), step)
            for one in parser.feed(body[start : start + step])
        ]

        assert [ServerEvent("metadata", b"{}")] == found
        assert 1 == parser.dropped


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"5",
        b"[]",
        b"{}",
        b'{"bytes":null}',
        b'{"bytes":5}',
        b'{"bytes":"***"}',
        b'{"bytes":"A"}',
        b'{"bytes":"\xc3\xa4"}',
        b'{"bytes":["e30="]}',
        b"[" * 100_000,
    ],
)
def test_a_chunk_that_wraps_nothing_is_as_it_is(payload: bytes) -> None:
    (found,) = EventStreamParser().feed(frame(payload, event_type="chunk"))

    assert ServerEvent("chunk", payload) == found
