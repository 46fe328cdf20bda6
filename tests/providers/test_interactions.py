"""Gemini's Interactions API: requests, answers, streams and errors."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.errors import ConfigError
from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.facts import Endpoint, Kind, RequestFacts, Usage

GEMINI = find_provider("gemini")
PATH = "/v1beta/interactions"
TEXT = "Tell me about the history of the town and of those who built it. " * 20
REPORT = {
    "total_input_tokens": 120,
    "total_cached_tokens": 100,
    "total_output_tokens": 30,
    "total_thought_tokens": 12,
    "total_tool_use_tokens": 7,
    "total_tokens": 169,
}
USED = Usage(
    input_tokens=127, output_tokens=42, cache_read_tokens=100, reasoning_tokens=12
)


def read(**fields: object) -> RequestFacts:
    body = json.dumps({"model": "gemini-3-pro", **fields}).encode()
    return GEMINI.read_request("POST", PATH, body)


def fed(body: bytes, kind: str) -> tuple[Usage | None, int]:
    meter = GEMINI.meter(read(input=TEXT), kind)
    for start in range(0, len(body), 7):
        meter.feed(body[start : start + 7])
    return meter.usage(), meter.flowed()


def stream(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in events)


def test_a_request_tells_its_model_and_its_bounds() -> None:
    facts = read(input=TEXT, stream=True, generation_config={"max_output_tokens": 50})
    agent = read(model=None, agent="deep-research", input=TEXT)

    assert (Endpoint.INTERACTIONS, "gemini-3-pro", True, 50) == (
        facts.endpoint,
        facts.model,
        facts.stream,
        facts.max_output,
    )
    assert 300 <= facts.input_tokens <= 450
    assert ("deep-research", None) == (agent.model, agent.max_output)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", PATH), ("POST", PATH + "/v1_abc/cancel"), ("DELETE", PATH + "/v1_abc")],
)
def test_what_only_looks_at_an_interaction_takes_no_tokens(
    method: str, path: str
) -> None:
    assert Endpoint.OTHER is GEMINI.read_request(method, path, b"{}").endpoint


def test_every_part_of_a_request_counts_and_no_data_as_text() -> None:
    plain = read(input=[{"type": "text", "text": TEXT}])
    data = "A" * 400_000
    picture = read(input=[{"type": "image", "data": data, "mime_type": "image/png"}])
    video = read(input=[{"type": "video", "data": data, "mime_type": "video/mp4"}])
    turns = read(input=[{"role": "user", "content": [{"type": "text", "text": TEXT}]}])
    richer = read(input=TEXT, system_instruction=TEXT, tools=[{"name": TEXT}])

    assert 1101 <= picture.input_tokens <= 1500
    assert video.input_tokens < 40_000
    assert 0.9 < turns.input_tokens / plain.input_tokens < 1.1
    assert richer.input_tokens > 2.5 * plain.input_tokens


def test_an_interaction_that_goes_on_from_another_is_set_apart() -> None:
    estimate = read(input=TEXT, previous_interaction_id="v1_abc").estimate
    assert estimate is not None

    assert "latin unseen" == estimate.script


def test_a_whole_answer_tells_its_usage() -> None:
    said = {"type": "text", "text": "All is well."}
    answer = {"id": "v1_a", "status": "completed", "usage": REPORT}
    for more in ({"outputs": [said]}, {"steps": [{"content": [said]}]}):
        usage, _ = fed(json.dumps({**answer, **more}).encode(), "application/json")

        assert USED == usage


def test_a_stream_tells_its_usage_at_the_end() -> None:
    body = stream(
        {"event_type": "interaction.start", "interaction": {"id": "v1_a"}},
        {"event_type": "content.delta", "delta": {"type": "text", "text": "All "}},
        {"event_type": "content.delta", "delta": {"type": "text", "text": "well"}},
        {"event_type": "interaction.complete", "interaction": {"usage": REPORT}},
    )

    assert (USED, 2) == fed(body, "text/event-stream")


@pytest.mark.parametrize(
    "more",
    [
        {"outputs": [{"type": "text", "text": "x" * 80}]},
        {"steps": [{"content": [{"type": "text", "text": "x" * 80}]}]},
        {"steps": [{"content": {"text": "x" * 80}}, None]},
        {"outputs": [{"type": "function_call", "arguments": {"a": "x" * 71}}]},
    ],
)
def test_without_usage_what_was_said_counts(more: dict[str, object]) -> None:
    usage, flowed = fed(json.dumps(more).encode(), "application/json")

    assert usage is None
    assert 20 == flowed


def test_a_report_without_counts_is_none() -> None:
    usage, _ = fed(b'{"usage": {"total_tokens": "many"}}', "application/json")

    assert usage is None


@pytest.mark.parametrize(
    "code", ["rate_limit_exceeded", "quota_exceeded", "too_many_requests"]
)
def test_a_limit_is_told_by_its_code_in_a_429_and_in_a_stream(code: str) -> None:
    error = {"error": {"code": code, "message": "Slow down."}}
    verdict = GEMINI.judge(429, {}, json.dumps(error).encode(), 0)
    meter = GEMINI.meter(read(input=TEXT), "text/event-stream")
    meter.feed(stream({"event_type": "error", **error}))
    inside = meter.failure(0)

    assert Kind.THROTTLED is verdict.kind
    assert inside is not None
    assert Kind.THROTTLED is inside.kind


def test_money_is_told_by_a_402() -> None:
    assert Kind.BILLING is GEMINI.judge(402, {}, b"{}", 0).kind


def test_a_refusal_has_the_shape_of_this_api() -> None:
    status, _, body = GEMINI.refusal("Wait.", 3_000_000, endpoint=Endpoint.INTERACTIONS)

    assert 429 == status
    assert {"error": {"code": "rate_limit_exceeded", "message": "Wait."}} == json.loads(
        body
    )


def test_it_is_not_below_the_base_url_that_speaks_as_openai_does() -> None:
    with pytest.raises(ConfigError, match="use google-genai"):
        GEMINI.require("POST", PATH)


def test_an_answer_counts_what_it_takes_and_what_it_came_to() -> None:
    facts = read(input=TEXT)

    assert facts.input_tokens == GEMINI.costs(facts).charged["input_tokens"]
    assert 127 == GEMINI.charged(facts, USED)["input_tokens"]


@given(st.binary(max_size=60))
def test_whatever_the_bytes_a_request_is_read(body: bytes) -> None:
    facts = GEMINI.read_request("POST", PATH, body)

    assert Endpoint.INTERACTIONS is facts.endpoint
    assert 0 <= facts.input_tokens <= 4 * len(body) + 40
