"""The usage in an answer, found as its bytes pass, in little memory."""

from __future__ import annotations

import itertools
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.providers.catalog import PROVIDERS, find_provider
from ratekeeper.providers.facts import Endpoint, Kind, Meter, RequestFacts, Usage
from ratekeeper.providers.meter import ANSWER_TAIL, WHOLE_ANSWER
from tests.providers.malformed import NOW_US

CHAT = RequestFacts(endpoint=Endpoint.CHAT, stream=True)
MESSAGES = RequestFacts(endpoint=Endpoint.MESSAGES, stream=True)


def stream(provider: str, *events: object) -> Meter:
    """Feed events byte by byte."""
    facts = MESSAGES if provider == "anthropic" else CHAT
    meter = find_provider(provider).meter(facts, "text/event-stream; charset=utf-8")
    for event in events:
        line = event if isinstance(event, str) else json.dumps(event)
        for byte in f"data: {line}\n\n".encode():
            meter.feed(bytes([byte]))
    return meter


def answer(provider: str, value: object) -> Meter:
    facts = MESSAGES if provider == "anthropic" else CHAT
    meter = find_provider(provider).meter(facts, "application/json")
    meter.feed(json.dumps(value).encode())
    return meter


def delta(**fields: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": fields}]}


def test_the_last_chunk_of_a_chat_tells_the_usage() -> None:
    usage = {
        "prompt_tokens": 20,
        "completion_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 16, "cache_write_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    meter = stream(
        "openai",
        delta(role="assistant", content=""),
        delta(content="Hello"),
        {"choices": [], "usage": usage},
        "[DONE]",
    )

    assert (
        Usage(
            input_tokens=20,
            output_tokens=9,
            cache_read_tokens=16,
            cache_write_tokens=3,
            reasoning_tokens=4,
        )
        == meter.usage()
    )


@pytest.mark.parametrize("end", ["completed", "incomplete", "failed"])
def test_the_last_event_of_a_response_tells_the_usage(end: str) -> None:
    usage = {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 5},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 4},
    }
    meter = stream(
        "openai",
        {"type": "response.created", "response": {"usage": None}},
        {"type": "response.output_text.delta", "delta": "Hello"},
        {"type": f"response.{end}", "response": {"usage": usage}},
    )

    assert (
        Usage(input_tokens=20, output_tokens=9, cache_read_tokens=5, reasoning_tokens=4)
        == meter.usage()
    )
    assert (end == "failed") == (meter.failure(NOW_US) is not None)


def test_a_message_tells_its_usage_in_two_halves_and_the_last_word_counts() -> None:
    begun = {"input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 1}
    meter = stream(
        "anthropic",
        {"type": "message_start", "message": {"usage": begun}},
        {"type": "content_block_start", "content_block": {"type": "text"}},
        {"type": "ping"},
        {"type": "content_block_delta", "delta": {"text": "Hello"}},
        {"type": "message_delta", "usage": {"output_tokens": 4, "input_tokens": None}},
        {"type": "message_delta", "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    )

    assert Usage(input_tokens=12, output_tokens=9, cache_read_tokens=7) == meter.usage()


def test_a_message_cut_short_counts_what_has_flowed() -> None:
    """Its opening says one output token; what came after it was generated too."""
    meter = stream(
        "anthropic",
        {"type": "message_start", "message": {"usage": {"input_tokens": 5}}},
        {"type": "content_block_delta", "delta": {"text": "x" * 40}},
        {"type": "content_block_delta", "delta": {"thinking": "x" * 20}},
        {"type": "content_block_delta", "delta": {"partial_json": "x" * 20}},
        {"type": "content_block_delta", "delta": {"signature": "x" * 400}},
    )

    assert Usage(input_tokens=5, output_tokens=20) == meter.usage()


def test_a_message_cut_before_anything_flowed_says_nothing() -> None:
    """The model may have been thinking for long: the reservation stands."""
    meter = stream(
        "anthropic",
        {"type": "message_start", "message": {"usage": {"input_tokens": 5}}},
    )

    assert meter.usage() is None
    assert 0 == meter.flowed()


def test_a_report_without_input_is_completed_by_the_estimate() -> None:
    """To settle an input of 0 would give all of it back."""
    facts = RequestFacts(endpoint=Endpoint.MESSAGES, input_tokens=70)
    provider = find_provider("anthropic")
    for begun in ({}, {"input_tokens": 0, "output_tokens": 0}):
        meter = provider.meter(facts, "text/event-stream")
        for event in (
            {"type": "message_start", "message": {"usage": begun}},
            {"type": "content_block_delta", "delta": {"text": "x" * 40}},
            {"type": "message_delta", "usage": {"output_tokens": 9}},
        ):
            meter.feed(b"data: " + json.dumps(event).encode() + b"\n\n")

        assert Usage(input_tokens=70, output_tokens=9) == meter.usage()


def test_a_report_of_no_output_where_text_flowed_is_completed_too() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 0}
    said = {"choices": [{"message": {"content": "x" * 40}}]}
    silent = {"choices": [{"message": {"content": ""}}]}

    expected = Usage(input_tokens=5, output_tokens=10)
    assert expected == answer("openai", {**said, "usage": usage}).usage()
    assert expected == answer("openai", {**said, "usage": {"prompt_tokens": 5}}).usage()
    assert (
        expected == stream("openai", delta(content="x" * 40), {"usage": usage}).usage()
    )
    assert Usage(input_tokens=5) == answer("openai", {**silent, "usage": usage}).usage()


def test_a_report_amid_a_stream_is_carried_on_by_what_flows_after_it() -> None:
    """Some compatible servers report with every chunk."""
    meter = stream(
        "openai",
        {**delta(content="x" * 40), "usage": {"prompt_tokens": 5}},
        {**delta(content="x"), "usage": {"prompt_tokens": 5, "completion_tokens": 12}},
        delta(content="x" * 400),
    )
    usage = meter.usage()

    assert usage is not None
    assert (5, 112) == (usage.input_tokens, usage.output_tokens)


def test_deepseeks_and_groqs_own_names_are_understood() -> None:
    deep = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_cache_hit_tokens": 4}
    groq = {"x_groq": {"usage": {"prompt_tokens": 9, "completion_tokens": 2}}}
    hit = stream("deepseek", {"choices": [], "usage": deep}).usage()
    other = stream("openai", groq).usage()

    assert Usage(input_tokens=9, output_tokens=2, cache_read_tokens=4) == hit
    assert Usage(input_tokens=9, output_tokens=2) == other


def test_moonshots_usage_inside_the_choice_is_found() -> None:
    told = {"prompt_tokens": 9, "completion_tokens": 2}
    ends = {"choices": [{"index": 0, "delta": {}, "usage": told}]}
    meter = stream("moonshot", delta(content="Hello"), ends)

    assert Usage(input_tokens=9, output_tokens=2) == meter.usage()


@pytest.mark.parametrize("code", ["too_many_requests", "quota_exceeded"])
def test_geminis_newer_codes_inside_a_stream_are_a_limit(code: str) -> None:
    failure = stream("gemini", {"error": {"code": code, "message": "No."}}).failure(0)

    assert failure is not None
    assert Kind.THROTTLED is failure.kind


@pytest.mark.parametrize(
    ("provider", "event", "size"),
    [
        ("openai", delta(content="x" * 40), 10),
        ("openai", delta(reasoning_content="x" * 40), 10),
        ("openai", delta(refusal="x" * 40), 10),
        ("openai", delta(content="漢" * 40), 30),
        ("openai", delta(content="\ud800"), 1),
        ("openai", {"choices": [{"text": "x" * 40}]}, 10),
        (
            "openai",
            delta(tool_calls=[{"function": {"name": "f", "arguments": "x" * 39}}]),
            10,
        ),
        ("openai", {"type": "response.reasoning_text.delta", "delta": "x" * 40}, 10),
        ("openai", {"type": "response.in_progress", "response": {}}, 0),
        ("openai", delta(content=""), 0),
        ("anthropic", {"type": "content_block_delta", "delta": {"text": "x"}}, 1),
        ("anthropic", {"type": "unknown"}, 0),
    ],
)
def test_what_flows_is_counted_by_its_bytes(
    provider: str, event: object, size: int
) -> None:
    meter = stream(provider, event)

    assert size == meter.flowed()
    assert meter.usage() is None


def test_each_event_with_text_is_at_least_a_token() -> None:
    meter = stream("openai", *[delta(content="x")] * 25)

    assert 25 == meter.flowed()


def test_an_event_above_the_bound_counts_as_something() -> None:
    meter = find_provider("openai").meter(CHAT, "text/event-stream")
    meter.feed(b"data: " + b"x" * 2_000_000 + b"\n\n")

    assert 1 == meter.flowed()


@pytest.mark.parametrize(
    ("provider", "event", "kind"),
    [
        (
            "openai",
            {
                "type": "response.failed",
                "response": {"error": {"code": "rate_limit_exceeded", "message": "x"}},
            },
            Kind.THROTTLED,
        ),
        ("openai", {"type": "response.failed", "response": {}}, Kind.TRANSIENT),
        (
            "openai",
            {"type": "error", "code": "server_error", "message": "x", "param": None},
            Kind.TRANSIENT,
        ),
        (
            "openai",
            {
                "error": {
                    "message": "x",
                    "type": "tokens",
                    "code": "rate_limit_exceeded",
                }
            },
            Kind.THROTTLED,
        ),
        ("openai", {"error": {"code": "insufficient_quota"}}, Kind.BILLING),
        ("openai", {"error": {"code": "invalid_prompt"}}, Kind.REJECTED),
        ("openai", {"error": {"code": "invalid_api_key"}}, Kind.UNAUTHORIZED),
        ("openai", {"error": {"code": "slow_down"}}, Kind.RAMP),
        ("openai", {"error": {"code": 429, "message": "x"}}, Kind.THROTTLED),
        ("openai", {"error": {"code": 502, "message": "x"}}, Kind.TRANSIENT),
        ("openai", {"error": "busy", "code": "server_overloaded"}, Kind.OVERLOADED),
        (
            "openai",
            {"error": {"code": "rate_limit_exceeded", "message": "Request too large"}},
            Kind.IMPOSSIBLE,
        ),
        (
            "anthropic",
            {"type": "error", "error": {"type": "overloaded_error", "message": "x"}},
            Kind.OVERLOADED,
        ),
        (
            "anthropic",
            {"type": "error", "error": {"type": "rate_limit_error"}},
            Kind.THROTTLED,
        ),
        (
            "anthropic",
            {"type": "error", "error": {"type": "api_error"}},
            Kind.TRANSIENT,
        ),
        (
            "anthropic",
            {"type": "error", "error": {"type": "permission_error"}},
            Kind.FORBIDDEN,
        ),
        ("anthropic", {"type": "error"}, Kind.TRANSIENT),
    ],
)
def test_an_error_inside_a_good_answer_is_found(
    provider: str, event: object, kind: Kind
) -> None:
    for meter in (stream(provider, event), answer(provider, event)):
        if isinstance(event, dict) and event.get("type") == "response.failed":
            meter = stream(provider, event)  # noqa: PLW2901 - it is an event alone
        failure = meter.failure(NOW_US)

        assert failure is not None
        assert kind is failure.kind


def test_the_first_error_of_a_stream_is_the_one() -> None:
    meter = stream(
        "openai", {"error": {"code": "slow_down"}}, {"error": {"code": "server_error"}}
    )
    failure = meter.failure(NOW_US)

    assert failure is not None
    assert failure.kind is Kind.RAMP


def test_a_wait_named_inside_a_stream_is_read() -> None:
    error = {
        "code": "rate_limit_exceeded",
        "message": "Rate limit reached on tokens per min (TPM): Limit 5, Used 5, "
        "Requested 1. Please try again in 1.146s.",
    }
    failure = stream("openai", {"error": error}).failure(NOW_US)

    assert failure is not None
    assert (1_146_000, "tokens", 60_000_000) == (
        failure.retry_after_us,
        failure.unit,
        failure.window_us,
    )


def test_a_whole_answer_tells_its_usage() -> None:
    chat = {
        "choices": [{"message": {"content": "x" * 40}}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 9},
    }
    response = {"output": [], "usage": {"input_tokens": 5, "output_tokens": 9}}
    message = {
        "content": [{"type": "text", "text": "x" * 40}],
        "usage": {
            "input_tokens": 2,
            "cache_creation_input_tokens": 3,
            "output_tokens": 9,
            "output_tokens_details": {"thinking_tokens": 6},
        },
    }
    embedded = RequestFacts(endpoint=Endpoint.EMBEDDINGS, input_tokens=9)
    embeddings = find_provider("openai").meter(embedded, "application/json")
    embeddings.feed(b'{"data":[],"usage":{"prompt_tokens":5,"total_tokens":5}}')

    assert Usage(input_tokens=5, output_tokens=9) == answer("openai", chat).usage()
    assert Usage(input_tokens=5, output_tokens=9) == answer("openai", response).usage()
    assert (
        Usage(input_tokens=5, output_tokens=9, cache_write_tokens=3, reasoning_tokens=6)
        == answer("anthropic", message).usage()
    )
    assert Usage(input_tokens=5) == embeddings.usage()
    assert 10 == answer("openai", chat).flowed()
    assert 10 == answer("anthropic", message).flowed()


@pytest.mark.parametrize(
    ("kept", "hour"),
    [
        ({"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}, 4),
        ({"ephemeral_5m_input_tokens": 7}, 0),
        ({}, None),
    ],
)
def test_what_is_cached_for_an_hour_is_told_apart(
    kept: dict[str, int], hour: int | None
) -> None:
    report = {"cache_creation_input_tokens": 7, "cache_creation": kept}
    read = answer("anthropic", {"usage": {**report, "output_tokens": 1}}).usage()

    assert read is not None
    assert (7, hour) == (read.cache_write_tokens, read.cache_write_1h_tokens)


def test_cached_tokens_are_never_more_than_all() -> None:
    usage = {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 50}}
    read = answer("openai", {"usage": usage}).usage()

    assert read is not None
    assert 5 == read.cache_read_tokens


@pytest.mark.parametrize(
    ("usage", "out"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}, 4),
        ({"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 90}, 80),
        ({"input_tokens": 10, "output_tokens": 4, "total_tokens": 90}, 80),
        ({"prompt_tokens": 10, "total_tokens": 90}, 80),
        ({"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 5}, 4),
        ({"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": -1}, 4),
        ({"completion_tokens": 4, "total_tokens": 90}, 4),
    ],
)
def test_reasoning_that_only_the_total_counts_is_output(
    usage: dict[str, int], out: int
) -> None:
    """Of xAI's own: 32 in, 9 out, 135 in all."""
    read = answer("xai", {"usage": usage}).usage()

    assert read is not None
    assert out == read.output_tokens


def test_empty_lines_before_an_answer_are_nothing() -> None:
    """DeepSeek sends them while a call waits for its turn."""
    meter = find_provider("deepseek").meter(CHAT, "application/json")
    for _ in range(1000):
        meter.feed(b"\n")
    silent = meter.flowed()
    meter.feed(b'{"usage":{"prompt_tokens":5,"completion_tokens":9}}')

    assert 0 == silent
    assert Usage(input_tokens=5, output_tokens=9) == meter.usage()


def test_usage_is_there_as_soon_as_the_answer_is_whole_and_not_before() -> None:
    meter = find_provider("openai").meter(CHAT, "application/json")
    meter.feed(b'{"usage":{"prompt_tokens":5,')
    before = meter.usage()
    meter.feed(b'"completion_tokens":9}}')

    assert before is None
    assert Usage(input_tokens=5, output_tokens=9) == meter.usage()


CUT = b'{"choices":[{"message":{"content":"' + b"x" * 365


def test_a_whole_answer_cut_short_says_nothing() -> None:
    """It was written in full before its first byte: the reservation stands."""
    whole = CHAT._replace(stream=False)
    meter = find_provider("openai").meter(whole, "application/json")
    for byte in CUT:
        meter.feed(bytes([byte]))

        assert meter.usage() is None
        assert 0 == meter.flowed()


def test_a_stream_that_comes_as_one_list_counts_by_its_length_where_it_is_cut() -> None:
    meter = find_provider("openai").meter(CHAT, "application/json")
    meter.feed(CUT)

    assert 100 == meter.flowed()


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
def test_of_what_runs_in_the_background_only_its_usage_says_anything(kind: str) -> None:
    facts = RequestFacts(endpoint=Endpoint.RESPONSES, stream=True, background=True)
    meter = find_provider("openai").meter(facts, kind)
    for event in ('{"type":"response.output_text.delta","delta":"Hi"}', "{}"):
        meter.feed(f"data: {event}\n\n".encode())
    cut = meter.usage(), meter.flowed()
    told = find_provider("openai").meter(facts, "text/event-stream")
    usage = {"input_tokens": 5, "output_tokens": 9}
    end = {"type": "response.completed", "response": {"usage": usage}}
    told.feed(f"data: {json.dumps(end)}\n\n".encode())

    assert (None, 0) == cut
    assert Usage(input_tokens=5, output_tokens=9) == told.usage()


def test_embeddings_generate_nothing() -> None:
    facts = RequestFacts(endpoint=Endpoint.EMBEDDINGS)
    meter = find_provider("openai").meter(facts, "application/json")
    silent = meter.flowed()
    meter.feed(b'{"data":[{"embedding":' + b"[0.1]" * 1000)

    assert (0, 1) == (silent, meter.flowed())


@pytest.mark.parametrize(
    "ending",
    [
        '],"usage":{"prompt_tokens":5,"completion_tokens":9}}',
        '], "usage" : {"prompt_tokens": 5, "completion_tokens": 9}, "metadata": {}}',
        '],"usage":{"prompt_tokens":5,"completion_tokens":9},"note":"\\"usage\\":{}"}',
        '],"usage":{"prompt_tokens":5,"completion_tokens":9},"usage":null}',
        '],"usage":{"prompt_tokens":5,"completion_tokens":9},"usage":{',
        '],"usage":{"prompt_tokens":5,"completion_tokens":9},"usage"}',
        '],"usage":{"prompt_tokens":5,"completion_tokens":9},"a":' + "[" * 9000,
    ],
)
def test_the_usage_of_a_long_answer_is_found_in_its_end(ending: str) -> None:
    meter = find_provider("openai").meter(CHAT, "application/json")
    meter.feed(b'{"data":[')
    for _ in range(100):
        meter.feed(b"0.12345678," * 1000)
    meter.feed(b"0" + ending.encode())

    assert Usage(input_tokens=5, output_tokens=9) == meter.usage()


def test_a_long_answer_whose_end_is_too_deep_to_read_says_nothing() -> None:
    meter = find_provider("openai").meter(CHAT, "application/json")
    meter.feed(b"{" + b" " * WHOLE_ANSWER + b'"usage":' + b'{"a":' * 3000)

    assert meter.usage() is None
    assert meter.flowed() > 0


def test_an_answer_of_any_length_is_kept_only_at_its_end() -> None:
    meter = find_provider("openai").meter(CHAT, "application/json")
    chunk = b'{"data":[0.123456789,' * 3000
    tracemalloc.start()
    for _ in range(500):
        meter.feed(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 2 * (WHOLE_ANSWER + 2 * ANSWER_TAIL + len(chunk))


@pytest.mark.parametrize(
    ("streams", "content_type", "is_stream"),
    [
        (True, "text/event-stream", True),
        (False, "TEXT/EVENT-STREAM; charset=utf-8", True),
        (True, "", True),
        (False, "", False),
        (True, "application/json", False),
        (True, "text/html", False),
    ],
)
def test_the_answers_own_type_says_how_to_read_it(
    streams: bool, content_type: str, is_stream: bool
) -> None:
    facts = RequestFacts(endpoint=Endpoint.CHAT, stream=streams)
    meter = find_provider("openai").meter(facts, content_type)
    meter.feed(b'data: {"usage":{"prompt_tokens":5,"completion_tokens":9}}\n\n')

    assert is_stream == (meter.usage() is not None)


@given(
    st.lists(st.binary(max_size=80), max_size=10),
    st.sampled_from(["text/event-stream", "application/json"]),
)
def test_any_bytes_at_all_are_looked_at(chunks: list[bytes], kind: str) -> None:
    for provider, facts in itertools.product(PROVIDERS.values(), (CHAT, MESSAGES)):
        meter = provider.meter(facts, kind)
        for chunk in chunks:
            meter.feed(chunk)
            meter.feed(b"\n\ndata: " + chunk + b"\n\n")

        assert meter.flowed() >= 0
        assert meter.usage() is None or meter.failure(NOW_US) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "usage",
                    "choices",
                    "delta",
                    "message",
                    "content",
                    "type",
                    "error",
                    "code",
                    "response",
                    "tool_calls",
                    "function",
                    "prompt_tokens",
                    "output_tokens",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["type", "usage", "error"]), JSON), max_size=4
    )
    | st.lists(JSON, max_size=4),
    st.sampled_from(["message_start", "message_delta", "response.completed", "error"]),
)
def test_any_json_at_all_is_looked_at(values: list[object], kind: str) -> None:
    for name, provider in PROVIDERS.items():
        events = [
            {**value, "type": kind} if isinstance(value, dict) else value
            for value in values
        ]
        meter = stream(name, *events)
        usage = meter.usage()

        assert usage is None or usage.input_tokens >= usage.cache_read_tokens
        assert meter.flowed() >= 0
        assert provider.partial(CHAT, meter.flowed()) is not None
