"""Gemini's own shapes: requests, streams that repeat their usage, and daily stops."""

from __future__ import annotations

import datetime
import json
import zoneinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.core.units import DAY, HOUR, MINUTE, SECOND
from ratekeeper.providers import headers
from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.facts import Endpoint, Kind, Meter, Usage, Verdict
from tests.providers.malformed import NOW_US

GEMINI = find_provider("gemini")
PATH = "/v1beta/models/gemini-2.5-flash:{}"
VERTEX = "/v1/projects/p/locations/us-central1/publishers/{}/models/{}:{}"
ASK = {"contents": [{"role": "user", "parts": [{"text": "word " * 80}]}]}
METRIC = "generativelanguage.googleapis.com/generate_content_free_tier_requests"
PER_MINUTE = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
PER_DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
TOKENS = "GenerateContentInputTokensPerModelPer{}-FreeTier"


def exhausted(*quotas: str, delay: str | None = "25s") -> dict[str, object]:
    """Write the error of quotas that are used up, as AI Studio does."""
    details: list[object] = [
        {
            "@type": "type.googleapis.com/google.rpc.Help",
            "links": [{"description": "Learn more", "url": "https://ai.google.dev"}],
        },
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [
                {
                    "quotaMetric": METRIC,
                    "quotaId": quota,
                    "quotaDimensions": {"model": "gemini-2.5-flash"},
                    "quotaValue": "5",
                }
                for quota in quotas
            ],
        },
    ]
    if delay is not None:
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        details.append({"@type": kind, "retryDelay": delay})
    message = f"You exceeded your current quota.\n* Quota exceeded for metric: {METRIC}"
    return {
        "error": {
            "code": 429,
            "message": message,
            "status": "RESOURCE_EXHAUSTED",
            "details": details,
        }
    }


def judge(body: object, provider: str = "gemini", now_us: int = NOW_US) -> Verdict:
    return find_provider(provider).judge(429, {}, json.dumps(body).encode(), now_us)


def fed(body: bytes, kind: str, method: str = "streamGenerateContent") -> Meter:
    facts = GEMINI.read_request("POST", PATH.format(method), json.dumps(ASK).encode())
    meter = GEMINI.meter(facts, kind)
    for start in range(0, len(body), 7):
        meter.feed(body[start : start + 7])
    return meter


def chunk(text: str, **usage: int) -> dict[str, object]:
    content = {"role": "model", "parts": [{"text": text}]}
    return {"candidates": [{"content": content}], "usageMetadata": usage}


def test_a_request_tells_its_model_in_the_path_and_its_bounds_in_the_body() -> None:
    bounds = {"maxOutputTokens": 50, "candidateCount": 2}
    body = json.dumps({**ASK, "generationConfig": bounds}).encode()
    path = PATH.format("streamGenerateContent") + "?alt=sse"
    facts = GEMINI.read_request("POST", path, body)

    assert (Endpoint.GENERATE, "gemini-2.5-flash", True, 50, 2) == (
        facts.endpoint,
        facts.model,
        facts.stream,
        facts.max_output,
        facts.choices,
    )
    assert 80 <= facts.input_tokens <= 180


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"generation_config": {"max_output_tokens": 9, "candidate_count": 3}},
            (9, 3),
        ),
        ({"generationConfig": {"candidateCount": "3"}}, (None, 3)),
        ({"generationConfig": {"max_output_tokens": 9}}, (9, 1)),
        (
            {
                "generationConfig": {"maxOutputTokens": 8, "max_output_tokens": 9},
                "generation_config": {"candidateCount": 2, "candidate_count": "3"},
            },
            (None, 3),
        ),
        (
            {
                "generation_config": {"maxOutputTokens": 7},
                "generationConfig": {"max_output_tokens": "9", "topK": 1},
            },
            (None, 1),
        ),
    ],
)
def test_bounds_may_have_the_names_and_figures_of_googles_protocol(
    settings: dict[str, object], expected: tuple[int | None, int]
) -> None:
    body = json.dumps({**ASK, **settings}).encode()
    facts = GEMINI.read_request("POST", PATH.format("generateContent"), body)

    assert expected == (facts.max_output, facts.choices)


@pytest.mark.parametrize(
    ("method", "path", "endpoint"),
    [
        ("POST", PATH.format("generateContent"), Endpoint.GENERATE),
        ("post", PATH.format("generateContent"), Endpoint.GENERATE),
        ("POST", PATH.format("generateAnswer"), Endpoint.GENERATE),
        ("POST", "/v1beta/dynamic/x:generateContent", Endpoint.GENERATE),
        ("POST", "/v1beta/dynamic/x:streamGenerateContent", Endpoint.GENERATE),
        ("POST", PATH.format("countTokens"), Endpoint.COUNT_TOKENS),
        ("POST", PATH.format("embedContent"), Endpoint.EMBEDDINGS),
        ("POST", PATH.format("batchEmbedContents"), Endpoint.EMBEDDINGS),
        (
            "POST",
            VERTEX.format("google", "gemini-3-pro", "generateContent"),
            Endpoint.GENERATE,
        ),
        (
            "POST",
            VERTEX.format("anthropic", "claude-sonnet-5", "streamRawPredict"),
            Endpoint.MESSAGES,
        ),
        ("POST", "/v1beta/openai/chat/completions", Endpoint.CHAT),
        ("GET", PATH.format("generateContent"), Endpoint.OTHER),
        ("POST", PATH.format("somethingElse"), Endpoint.OTHER),
        ("GET", "/v1beta/models", Endpoint.OTHER),
    ],
)
def test_a_path_tells_what_is_asked_for(
    method: str, path: str, endpoint: Endpoint
) -> None:
    for name in ("gemini", "vertex"):
        provider = find_provider(name)

        assert endpoint is provider.read_request(method, path, b"{}").endpoint


def test_which_model_an_app_runs_is_not_said() -> None:
    path = "/v1beta/dynamic/gemini-x:generateContent"
    body = json.dumps({"contents": [{"parts": [{"text": "word " * 80}]}]}).encode()
    facts = GEMINI.read_request("POST", path, body)

    assert "" == facts.model
    assert facts.input_tokens >= 80


def test_claude_on_vertex_is_named_by_the_path() -> None:
    path = VERTEX.format("anthropic", "claude-sonnet-5@20260929", "rawPredict")
    body = b'{"anthropic_version":"vertex-2023-10-16","messages":[],"max_tokens":9}'
    facts = find_provider("vertex").read_request("POST", path, body)

    assert ("claude-sonnet-5@20260929", 9) == (facts.model, facts.max_output)


def test_pictures_sounds_and_files_are_no_text() -> None:
    data = "A" * 40_000
    parts = [
        ({"inlineData": {"mimeType": "image/png", "data": data}}, 3000, 6000),
        ({"inline_data": {"mime_type": "audio/mp3", "data": data}}, 100, 200),
        ({"inlineData": {"mimeType": "application/pdf", "data": data}}, 2500, 4000),
        ({"fileData": {"fileUri": "gs://b/o", "mimeType": "video/mp4"}}, 2500, 4000),
    ]
    for part, least, most in parts:
        body = {"contents": [{"parts": [part]}]}
        facts = GEMINI.read_request(
            "POST", PATH.format("generateContent"), json.dumps(body).encode()
        )

        assert least <= facts.input_tokens <= most


def test_tools_and_instructions_reach_the_model() -> None:
    tools = [{"functionDeclarations": [{"name": "f" * 200, "parameters": {}}]}]
    plain = GEMINI.read_request(
        "POST", PATH.format("generateContent"), json.dumps(ASK).encode()
    )
    body = {
        **ASK,
        "systemInstruction": {"parts": [{"text": "Be brief. " * 40}]},
        "tools": tools,
        "safetySettings": [{"category": "x" * 9000}],
    }
    more = GEMINI.read_request(
        "POST", PATH.format("generateContent"), json.dumps(body).encode()
    )

    assert plain.input_tokens + 120 < more.input_tokens < plain.input_tokens + 900


def test_each_chunk_repeats_the_usage_and_the_last_word_counts() -> None:
    chunks = (
        chunk("Hel", promptTokenCount=20, candidatesTokenCount=1, totalTokenCount=21),
        chunk(
            "lo",
            promptTokenCount=20,
            candidatesTokenCount=5,
            thoughtsTokenCount=4,
            cachedContentTokenCount=8,
            toolUsePromptTokenCount=3,
            totalTokenCount=32,
        ),
    )
    usage = Usage(
        input_tokens=23, output_tokens=9, cache_read_tokens=8, reasoning_tokens=4
    )
    events = "".join(f"data: {json.dumps(one)}\r\n\r\n" for one in chunks)

    assert usage == fed(events.encode(), "text/event-stream").usage()
    assert usage == fed(json.dumps(chunks).encode(), "application/json").usage()
    assert usage == fed(json.dumps(chunks[1]).encode(), "application/json").usage()


def test_thoughts_alone_are_output() -> None:
    body = {"usageMetadata": {"promptTokenCount": 5, "thoughtsTokenCount": 7}}
    usage = fed(json.dumps(body).encode(), "application/json").usage()

    assert Usage(input_tokens=5, output_tokens=7, reasoning_tokens=7) == usage


def test_a_stream_cut_short_counts_what_has_flowed_since_its_last_report() -> None:
    chunks = (
        chunk("x" * 40, promptTokenCount=20, candidatesTokenCount=9),
        {"candidates": [{"content": {"parts": [{"text": "x" * 80}]}}]},
        {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f"}}]}}]},
    )
    events = "".join(f"data: {json.dumps(one)}\n\n" for one in chunks)
    usage = fed(events.encode(), "text/event-stream").usage()

    assert usage is not None
    assert 9 + 20 <= usage.output_tokens <= 9 + 26


def test_the_usage_of_a_long_list_is_found_at_its_end() -> None:
    chunks = [
        chunk("x" * 3000, promptTokenCount=20, candidatesTokenCount=n)
        for n in range(99)
    ]
    body = json.dumps(chunks).encode()
    usage = fed(body, "application/json").usage()

    assert len(body) > 256 * 1024
    assert Usage(input_tokens=20, output_tokens=98) == usage


def test_an_error_in_a_list_or_a_stream_is_read_as_it_is() -> None:
    body = exhausted(PER_MINUTE)
    listed = fed(json.dumps([body]).encode(), "application/json")
    event = fed(f"data: {json.dumps(body)}\n\n".encode(), "text/event-stream")

    for verdict in (
        judge([body]),
        listed.failure(NOW_US),
        event.failure(NOW_US),
    ):
        assert verdict is not None
        assert (Kind.THROTTLED, "requests", MINUTE, 25 * SECOND) == (
            verdict.kind,
            verdict.unit,
            verdict.window_us,
            verdict.retry_after_us,
        )


@pytest.mark.parametrize(
    ("quotas", "kind", "unit", "window_us"),
    [
        ((PER_MINUTE,), Kind.THROTTLED, "requests", MINUTE),
        ((TOKENS.format("Minute"),), Kind.THROTTLED, "tokens", MINUTE),
        ((PER_DAY,), Kind.STOPPED, "requests", DAY),
        ((TOKENS.format("Day"),), Kind.STOPPED, "tokens", DAY),
        ((PER_MINUTE, PER_DAY), Kind.STOPPED, "requests", DAY),
        (("SomethingNew",), Kind.THROTTLED, None, None),
        ((), Kind.THROTTLED, None, None),
    ],
)
def test_a_quotas_name_tells_which_limit_it_is(
    quotas: tuple[str, ...], kind: Kind, unit: str | None, window_us: int | None
) -> None:
    for provider in ("gemini", "vertex"):
        verdict = judge(exhausted(*quotas), provider)

        assert (kind, unit, window_us) == (
            verdict.kind,
            verdict.unit,
            verdict.window_us,
        )


def test_a_days_quota_waits_for_midnight_in_california_whatever_the_delay() -> None:
    """NOW_US is 03:06:40 there."""
    verdict = judge(exhausted(PER_DAY, delay="25s"))

    assert 20 * HOUR + 3200 * SECOND == verdict.retry_after_us


@pytest.mark.parametrize(
    ("moment", "hours"),
    [
        ("2026-11-01T07:00:00+00:00", 25),  # clocks go back in California that day
        ("2026-03-08T08:00:00+00:00", 23),
        ("2026-06-15T07:00:00+00:00", 24),
    ],
)
def test_a_day_has_as_many_hours_as_its_clock(moment: str, hours: int) -> None:
    now = datetime.datetime.fromisoformat(moment)
    wait_us = headers.day_end_us(int(now.timestamp()) * SECOND, "America/Los_Angeles")

    assert hours * HOUR == wait_us


@given(st.integers(0, 4 * 10**15))
def test_a_day_ends_at_midnight_and_within_25_hours(now_us: int) -> None:
    zone = "America/Los_Angeles"
    wait_us = headers.day_end_us(now_us, zone)
    assert wait_us is not None
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    end = epoch + datetime.timedelta(microseconds=now_us + wait_us)

    assert datetime.time() == end.astimezone(zoneinfo.ZoneInfo(zone)).time()
    assert 0 < wait_us <= 25 * HOUR


def test_where_no_zone_is_known_the_hint_stands() -> None:
    assert headers.day_end_us(NOW_US, "Nowhere/Nothing") is None


@pytest.mark.parametrize(
    ("delay", "wait_us"),
    [
        ("25s", 25 * SECOND),
        ("34.4s", 34_400_000),
        ("25.08253442s", 25_082_535),
        ("0s", 0),
        ("36000s", 10 * HOUR),
        ("2678401s", None),
        ("-5s", None),
        ("25", None),
        ("s", None),
        ("", None),
        ("1e3s", None),
        ("NaNs", None),
        ("PT5S", None),
        ("5m", None),
        ("9" * 5000 + "s", None),
    ],
)
def test_a_delay_is_a_duration_of_protobufs(delay: str, wait_us: int | None) -> None:
    assert wait_us == headers.read_proto_duration(delay)
    assert wait_us == judge(exhausted(PER_MINUTE, delay=delay)).retry_after_us


@given(st.integers(0, 2 * 10**6), st.integers(0, 10**9 - 1))
def test_every_duration_is_read_and_rounded_up(seconds: int, nanos: int) -> None:
    said = f"{seconds}.{nanos:09}".rstrip("0").rstrip(".") + "s"

    assert seconds * SECOND + -(-nanos // 1000) == headers.read_proto_duration(said)


@given(st.text(max_size=40))
def test_any_text_is_a_duration_or_none(text: str) -> None:
    wait_us = headers.read_proto_duration(text)

    assert wait_us is None or wait_us >= 0


def test_the_words_tell_the_wait_where_the_details_do_not() -> None:
    said = {"code": 429, "message": "Over.\nPlease retry in 25.08253442s."}

    assert 25_082_535 == judge({"error": said}).retry_after_us


def test_an_interaction_fails_with_codes_of_its_own() -> None:
    for code in ("rate_limit_exceeded", "quota_exceeded", "too_many_requests"):
        assert Kind.THROTTLED is judge({"error": {"code": code}}).kind
    assert Kind.BILLING is GEMINI.judge(402, {}, b"{}", NOW_US).kind


def test_vertexs_429_without_details_is_others_traffic() -> None:
    said = {"code": 429, "message": "Resource exhausted. Please try again later."}

    assert Kind.OVERLOADED is judge({"error": said}, "vertex").kind
    assert Kind.THROTTLED is judge({"error": said}, "gemini").kind


def test_an_overloaded_model_is_no_limit() -> None:
    body = b'{"error":{"code":503,"message":"Overloaded.","status":"UNAVAILABLE"}}'
    event = fed(b"data: " + body + b"\n\n", "text/event-stream").failure(NOW_US)

    assert Kind.OVERLOADED is GEMINI.judge(503, {}, body, NOW_US).kind
    assert event is not None
    assert Kind.OVERLOADED is event.kind


@pytest.mark.parametrize(
    "details",
    [
        5,
        "x",
        {},
        [],
        [None],
        [5, "x", []],
        [{}],
        [{"violations": None}],
        [{"violations": 5}],
        [{"violations": [None, 5, "x", [], {}]}],
        [{"violations": [{"quotaId": None}, {"quotaId": []}, {"quotaId": {}}]}],
        [{"retryDelay": None}],
        [{"retryDelay": 25}],
        [{"retryDelay": {"seconds": 25}}],
        [{"reason": []}],
        [{"violations": [{"quotaId": "x" * 100_000}] * 100}] * 100,
        [[[[[]]]]],
    ],
)
def test_details_of_another_shape_say_nothing(details: object) -> None:
    said = {"code": 429, "message": "Over.", "details": details}
    verdict = judge({"error": said})

    assert (Kind.THROTTLED, None) == (verdict.kind, verdict.retry_after_us)


def test_a_refusal_has_googles_shape_and_is_read_back() -> None:
    facts = GEMINI.read_request("POST", PATH.format("generateContent"), b"{}")
    status, fields, body = GEMINI.refusal("Wait.", SECOND, endpoint=facts.endpoint)
    said = {"code": 429, "message": "Wait.", "status": "RESOURCE_EXHAUSTED"}

    assert {"error": said} == json.loads(body)
    assert Kind.THROTTLED is GEMINI.judge(status, fields, body, NOW_US).kind


@pytest.mark.parametrize(
    ("provider", "body", "expected"),
    [
        ("gemini", exhausted(PER_DAY), True),
        ("gemini", exhausted(PER_MINUTE), True),
        ("gemini", exhausted(TOKENS.format("Minute")), True),
        ("gemini", exhausted("GenerateRequestsPerDayPerProject"), False),
        ("gemini", exhausted(TOKENS.format("Minute"), "AnyRequestsPerDay"), False),
        ("gemini", {"error": {"message": "Resource has been exhausted"}}, False),
        (
            "vertex",
            {
                "error": {
                    "code": 429,
                    "message": "Quota exceeded for aiplatform.googleapis.com/"
                    "online_prediction_requests_per_minute_per_project_per_base_model "
                    "with base model: gemini-pro.",
                }
            },
            True,
        ),
    ],
)
def test_a_quota_of_a_model_is_told_from_one_of_the_account(
    provider: str, body: object, expected: bool
) -> None:
    assert expected is judge(body, provider).of_model
