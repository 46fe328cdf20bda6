"""Cohere's own shapes."""

from __future__ import annotations

import json

import pytest

from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.facts import Endpoint, Kind, Meter, Usage
from tests.providers.malformed import NOW_US

COHERE = find_provider("cohere")
ASK = {
    "model": "command-a-03-2025",
    "messages": [{"role": "user", "content": "word " * 80}],
    "max_tokens": 50,
    "stream": True,
}
USAGE = {
    "billed_units": {"input_tokens": 15, "output_tokens": 9},
    "tokens": {"input_tokens": 80, "output_tokens": 11},
    "cached_tokens": 16,
}
USED = Usage(input_tokens=80, output_tokens=11, cache_read_tokens=16)


def fed(body: bytes, kind: str) -> Meter:
    facts = COHERE.read_request("POST", "/v2/chat", json.dumps(ASK).encode())
    meter = COHERE.meter(facts, kind)
    for start in range(0, len(body), 7):
        meter.feed(body[start : start + 7])
    return meter


def stream(*events: object) -> Meter:
    return fed(
        "".join(f"data: {json.dumps(one)}\n\n" for one in events).encode(),
        "text/event-stream",
    )


def delta(**message: object) -> dict[str, object]:
    return {"type": "content-delta", "delta": {"message": message}}


def test_a_request_is_read() -> None:
    facts = COHERE.read_request("POST", "/v2/chat", json.dumps(ASK).encode())

    assert (Endpoint.COHERE_CHAT, "command-a-03-2025", True, 50) == (
        facts.endpoint,
        facts.model,
        facts.stream,
        facts.max_output,
    )
    assert 80 <= facts.input_tokens <= 180


@pytest.mark.parametrize(
    ("method", "path", "endpoint"),
    [
        ("POST", "/v1/chat", Endpoint.COHERE_CHAT),
        ("POST", "/v2/chat/", Endpoint.COHERE_CHAT),
        ("GET", "/v2/chat", Endpoint.OTHER),
        ("POST", "/v2/rerank", Endpoint.OTHER),
        ("POST", "/v2/embed", Endpoint.EMBEDDINGS),
        ("POST", "/compatibility/v1/chat/completions", Endpoint.CHAT),
    ],
)
def test_a_path_tells_what_is_asked_for(
    method: str, path: str, endpoint: Endpoint
) -> None:
    assert endpoint is COHERE.read_request(method, path, b"{}").endpoint


@pytest.mark.parametrize(
    "said",
    [
        {"texts": ["word " * 80, "word"]},
        {"inputs": [{"content": [{"type": "text", "text": "word " * 80}]}]},
    ],
)
def test_what_is_embedded_is_input_and_gives_no_output(said: dict[str, object]) -> None:
    body = json.dumps({"model": "embed-v4.0", **said}).encode()
    facts = COHERE.read_request("POST", "/v2/embed", body)

    assert ("embed-v4.0", 0) == (facts.model, facts.max_output)
    assert 80 <= facts.input_tokens <= 180
    assert 25 == COHERE.read_request("POST", "/v2/embed", b"x" * 99).input_tokens


def test_tools_and_the_first_apis_names_reach_the_model() -> None:
    tools = [{"type": "function", "function": {"name": "f" * 400}}]
    old = {"message": "word " * 80, "chat_history": [], "tools": tools}
    facts = COHERE.read_request("POST", "/v1/chat", json.dumps(old).encode())

    assert facts.input_tokens > 120


def test_the_last_event_tells_the_usage() -> None:
    meter = stream(
        {"type": "message-start", "id": "1"},
        delta(content={"text": "Hello"}),
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": USAGE}},
    )

    assert USED == meter.usage()
    assert meter.failure(NOW_US) is None


def test_a_stream_cut_short_counts_what_has_flowed() -> None:
    meter = stream(
        delta(content={"text": "x" * 40}),
        delta(content={"thinking": "x" * 20}),
        delta(tool_plan="x" * 12),
        delta(tool_calls={"function": {"arguments": "x" * 8}}),
    )

    assert meter.usage() is None
    assert 20 == meter.flowed()


@pytest.mark.parametrize("name", ["usage", "meta"])
def test_a_whole_answer_tells_its_usage(name: str) -> None:
    content = [{"type": "text", "text": "Hello"}]
    body = {"message": {"content": content}, name: USAGE}

    assert USED == fed(json.dumps(body).encode(), "application/json").usage()


def test_what_is_billed_stands_where_all_tokens_are_not_told() -> None:
    body = {"usage": {"billed_units": {"input_tokens": 15, "output_tokens": 9}}}
    usage = fed(json.dumps(body).encode(), "application/json").usage()

    assert Usage(input_tokens=15, output_tokens=9) == usage


def test_an_answer_without_usage_counts_its_text() -> None:
    old, new = {"text": "x" * 40}, {"message": {"content": [{"text": "x" * 40}]}}
    for body in (old, new):
        meter = fed(json.dumps(body).encode(), "application/json")

        assert meter.usage() is None
        assert 10 == meter.flowed()


def test_an_error_inside_a_stream_is_one() -> None:
    ended = {"finish_reason": "ERROR", "error": "Too many requests"}
    for event in (
        {"type": "message-end", "delta": ended},
        {"type": "stream-end", "finish_reason": "ERROR"},
        {"error": {"message": "Broken."}},
    ):
        failure = stream(event).failure(NOW_US)

        assert failure is not None
        assert Kind.TRANSIENT is failure.kind


def test_a_refusal_has_coheres_shape() -> None:
    _, _, body = COHERE.refusal("Wait.", 5, endpoint=Endpoint.COHERE_CHAT)

    assert {"message": "Wait."} == json.loads(body)
