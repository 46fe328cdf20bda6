"""Gemini as it is played: its own shapes, and limits that only errors tell of."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import httpx2
import pytest

from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.facts import Kind, Usage, Verdict
from ratekeeper.simulator.dialect import Problem, Trouble
from ratekeeper.simulator.dialects import find_dialect
from ratekeeper.simulator.server import Simulator
from ratekeeper.testing import ManualClock
from tests.simulator.asking import ask, chat, events

PROVIDER = find_provider("gemini")
PATH = "/v1beta/models/gemini-2.5-flash:{}"
DAY = "1 requests/day resets 00:00 America/Los_Angeles"
NOW_US = 1_800_000_000_000_000


def generate(
    simulator: Simulator, cue: str = "", method: str = "generateContent", **more: Any
) -> httpx2.Response:
    body = {"contents": [{"role": "user", "parts": [{"text": "Say hello"}]}], **more}
    return ask(simulator, PATH.format(method), body, cue=cue)


def judged(response: httpx2.Response) -> Verdict:
    headers = dict(response.headers)
    return PROVIDER.judge(response.status_code, headers, response.content, NOW_US)


def test_an_answer_and_its_stream_tell_what_was_used() -> None:
    simulator = Simulator("gemini")
    whole = generate(simulator, "output=70").json()
    streamed = events(generate(simulator, "output=70", "streamGenerateContent"))
    last = streamed[-1][1]

    assert "STOP" == whole["candidates"][0]["finishReason"]
    assert whole["usageMetadata"] == last["usageMetadata"]
    assert 70 == last["usageMetadata"]["candidatesTokenCount"]
    assert len(streamed) > 30
    assert all("usageMetadata" in value for _, value in streamed)


@pytest.mark.parametrize("method", ["generateContent", "streamGenerateContent"])
def test_what_it_says_it_used_is_read(method: str) -> None:
    response = generate(Simulator("gemini"), "output=9,cached=4", method)
    facts = PROVIDER.read_request("POST", PATH.format(method), response.request.content)
    meter = PROVIDER.meter(facts, response.headers["content-type"])
    meter.feed(response.content)

    assert Usage(input_tokens=9, output_tokens=9, cache_read_tokens=4) == meter.usage()
    assert 9 == meter.flowed()


def test_an_answer_ends_at_its_bound() -> None:
    bounds = {"maxOutputTokens": 3}
    for method in ("generateContent", "streamGenerateContent"):
        response = generate(
            Simulator("gemini"), "output=9", method, generationConfig=bounds
        )

        assert '"finishReason":"MAX_TOKENS"' in response.text


def test_without_usage_it_tells_none() -> None:
    assert "usageMetadata" not in generate(Simulator("gemini"), "no-usage").text


def test_tokens_are_counted_free_of_any_limit() -> None:
    simulator = Simulator("gemini", ["1 rpm"], clock=ManualClock())
    counts = [generate(simulator, method="countTokens") for _ in range(3)]

    assert [{"totalTokens": 9}] * 3 == [one.json() for one in counts]


def test_openais_shapes_are_served_below_their_own_path() -> None:
    simulator = Simulator("gemini")
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    for more in ({}, {"stream": True}):
        response = ask(simulator, "/v1beta/openai/chat/completions", {**body, **more})

        assert 200 == response.status_code
        assert "chat.completion" in response.text
    assert 200 == ask(simulator, "/v1beta/openai/models").status_code


def test_its_key_comes_in_a_header_of_its_own() -> None:
    dialect = find_dialect("gemini")

    assert "k" == dialect.key({"x-goog-api-key": " k "})
    assert "k" == dialect.key({"authorization": "Bearer k"})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", PATH.format("generateContent")),
        ("POST", PATH.format("somethingElse")),
        ("POST", "/v1beta/models/a/b:generateContent"),
    ],
)
def test_other_paths_lead_nowhere(method: str, path: str) -> None:
    assert 404 == ask(Simulator("gemini"), path, {}, method=method).status_code


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"contents": []},
        {"contents": "Hi"},
        {"contents": [{}], "generationConfig": 5},
        {"contents": [{}], "generationConfig": {"maxOutputTokens": 0}},
    ],
)
def test_a_request_that_makes_no_sense_is_an_invalid_argument(body: Any) -> None:
    response = ask(Simulator("gemini"), PATH.format("generateContent"), body)

    assert 400 == response.status_code
    assert "INVALID_ARGUMENT" == response.json()["error"]["status"]


def test_a_picture_counts_as_one() -> None:
    parts = [{"inlineData": {"mimeType": "image/png", "data": "A" * 9000}}]
    response = generate(
        Simulator("gemini"), method="countTokens", contents=[{"parts": parts}, "Hi"]
    )

    assert 85 < response.json()["totalTokens"] < 110


@pytest.mark.parametrize(
    ("limit", "unit", "window_s"), [("1 rpm", "requests", 60), ("9 tpm", "tokens", 60)]
)
def test_no_header_tells_of_a_limit_and_the_body_of_an_error_does(
    limit: str, unit: str, window_s: int
) -> None:
    simulator = Simulator("gemini", [limit], clock=ManualClock())
    responses = [generate(simulator) for _ in range(6)]
    refused = responses[-1]
    verdict = judged(refused)

    assert 429 == refused.status_code
    assert not any(
        "ratelimit" in name or name == "retry-after"
        for one in responses
        for name in one.headers
    )
    assert (Kind.THROTTLED, unit, window_s * 10**6) == (
        verdict.kind,
        verdict.unit,
        verdict.window_us,
    )
    assert verdict.retry_after_us is not None
    assert 0 < verdict.retry_after_us <= 60_000_000
    assert "Quota exceeded for metric" in refused.json()["error"]["message"]


def test_a_days_quota_hints_at_a_minute_and_is_gone_until_midnight() -> None:
    simulator = Simulator("gemini", [DAY], clock=ManualClock())
    generate(simulator)
    refused = generate(simulator)
    delays = [one.get("retryDelay") for one in refused.json()["error"]["details"]]
    verdict = judged(refused)
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    end = epoch + datetime.timedelta(
        microseconds=NOW_US + (verdict.retry_after_us or 0)
    )

    assert "60s" in delays
    assert Kind.STOPPED is verdict.kind
    assert (8, 0) == (end.hour, end.minute)  # UTC, of midnight in a Californian winter


def test_a_call_in_flight_too_many_has_no_hint() -> None:
    simulator = Simulator("gemini", ["1 concurrent"])

    async def two() -> list[httpx2.Response]:
        first = asyncio.to_thread(generate, simulator, "latency=0.3")
        second = asyncio.to_thread(generate, simulator, "latency=0.3")
        return list(await asyncio.gather(first, second))

    refused = max(asyncio.run(two()), key=lambda one: one.status_code)

    assert 429 == refused.status_code
    assert "retry" not in refused.text


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (Trouble.THROTTLED, Kind.THROTTLED),
        (Trouble.SLOW_DOWN, Kind.THROTTLED),
        (Trouble.UNAUTHORIZED, Kind.UNAUTHORIZED),
        (Trouble.FORBIDDEN, Kind.FORBIDDEN),
        (Trouble.BANNED, Kind.FORBIDDEN),
        (Trouble.NOT_FOUND, Kind.REJECTED),
        (Trouble.BAD_REQUEST, Kind.REJECTED),
        (Trouble.BODY_TOO_LARGE, Kind.IMPOSSIBLE),
        (Trouble.OVERLOADED, Kind.OVERLOADED),
        (Trouble.BILLING, Kind.BILLING),
        (Trouble.SPEND_LIMIT, Kind.BILLING),
        (Trouble.SERVER, Kind.TRANSIENT),
        (Trouble.TIMEOUT, Kind.TRANSIENT),
        (Trouble.OTHER, Kind.REJECTED),
    ],
)
def test_every_trouble_is_understood(trouble: Trouble, kind: Kind) -> None:
    reply = find_dialect("gemini").failure(Problem(trouble=trouble), [], NOW_US)
    verdict = PROVIDER.judge(reply.status, reply.headers, reply.body, NOW_US)

    assert kind is verdict.kind


def test_a_stream_that_breaks_off_ends_in_an_error() -> None:
    response = generate(
        Simulator("gemini"), "output=9,error=2", "streamGenerateContent"
    )
    facts = PROVIDER.read_request(
        "POST", PATH.format("streamGenerateContent"), response.request.content
    )
    meter = PROVIDER.meter(facts, response.headers["content-type"])
    meter.feed(response.content)
    failure = meter.failure(NOW_US)

    assert failure is not None
    assert Kind.OVERLOADED is failure.kind


def test_a_refused_chat_below_openais_path_has_googles_error() -> None:
    simulator = Simulator("gemini", ["1 rpm"], clock=ManualClock())
    chat(simulator)

    assert "RESOURCE_EXHAUSTED" == chat(simulator).json()["error"]["status"]
