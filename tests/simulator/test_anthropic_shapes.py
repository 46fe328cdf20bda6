"""Anthropic's own words, written out from its documentation."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from ratekeeper.simulator.server import Simulator
from ratekeeper.testing import ManualClock
from tests.simulator.asking import KEY, ROLES, ask, events, messages

SAY_HELLO_TOKENS = 9


def simulator(*limits: str, clock: ManualClock | None = None) -> Simulator:
    return Simulator("anthropic", limits, clock=clock or ManualClock())


def test_a_message_has_the_documented_shape() -> None:
    response = messages(simulator("10 rpm"), "output=2")
    body = response.json()
    content = body.pop("content")

    assert [("text", 8)] == [(part["type"], len(part["text"])) for part in content]
    assert body == {
        "id": body["id"],
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": SAY_HELLO_TOKENS,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 2,
            "service_tier": "standard",
        },
    }
    assert response.headers["request-id"].startswith("req_")
    assert response.headers["anthropic-organization-id"]


def test_every_answer_tells_how_the_limits_stand() -> None:
    response = messages(simulator("50 rpm", "40k itpm", "8k otpm"), "output=20")
    told = {
        name.removeprefix("anthropic-ratelimit-"): value
        for name, value in response.headers.items()
        if name.startswith("anthropic-ratelimit-")
    }

    assert told == {
        "requests-limit": "50",
        "requests-remaining": "49",
        "requests-reset": "2027-01-15T08:00:02Z",  # 1.2 s, rounded up
        "input-tokens-limit": "40000",
        "input-tokens-remaining": "40000",  # to the nearest thousand
        "input-tokens-reset": "2027-01-15T08:00:01Z",
        "output-tokens-limit": "8000",
        "output-tokens-remaining": "8000",
        "output-tokens-reset": "2027-01-15T08:00:01Z",
        "tokens-limit": "8000",  # the tightest in force
        "tokens-remaining": "8000",
        "tokens-reset": "2027-01-15T08:00:01Z",
    }


def test_a_call_over_a_limit_reads_as_anthropic_writes_it() -> None:
    provider = simulator("30k itpm")
    long = [{"role": "user", "content": "x" * 100_000}]
    messages(provider, messages=long)
    response = messages(provider, messages=long)
    body = response.json()

    assert 429 == response.status_code
    assert (
        response.headers["retry-after"] == "41"
    )  # 20,006 tokens lacking of 30,000/min
    assert "error" == body["type"]
    assert "rate_limit_error" == body["error"]["type"]
    assert body["request_id"] == response.headers["request-id"]
    assert body["error"]["message"].startswith(
        "This request would exceed your organization's rate limit of 30,000 input "
        "tokens per minute (org: "
    )
    assert "model: claude-x" in body["error"]["message"]
    assert "https://docs.claude.com/en/api/rate-limits" in body["error"]["message"]


@pytest.mark.parametrize(
    ("cue", "status", "error"),
    [
        (
            "status=529",
            529,
            {"type": "overloaded_error", "message": "Overloaded"},
        ),
        (
            "reason=billing",
            400,
            {
                "type": "invalid_request_error",
                "message": "Your credit balance is too low to access the Anthropic API. "
                "Please go to Plans & Billing to upgrade or purchase credits.",
            },
        ),
        (
            "status=401",
            401,
            {"type": "authentication_error", "message": "invalid x-api-key"},
        ),
    ],
)
def test_a_trouble_is_told_in_anthropics_words(
    cue: str, status: int, error: dict[str, Any]
) -> None:
    response = messages(simulator("10 rpm"), cue)

    assert status == response.status_code
    assert response.json() == {
        "type": "error",
        "error": error,
        "request_id": response.headers["request-id"],
    }


@pytest.mark.parametrize(
    ("cue", "status", "kind"),
    [
        ("status=400", 400, "invalid_request_error"),
        ("status=403", 403, "permission_error"),
        ("status=404", 404, "not_found_error"),
        ("status=413", 413, "request_too_large"),
        ("status=429", 429, "rate_limit_error"),
        ("status=500", 500, "api_error"),
        ("status=504", 504, "timeout_error"),
    ],
)
def test_a_status_has_anthropics_type(cue: str, status: int, kind: str) -> None:
    response = messages(simulator("10 rpm"), cue)

    assert (status, kind) == (response.status_code, response.json()["error"]["type"])


def test_a_spend_cap_names_its_code_and_no_time_to_come_back() -> None:
    response = messages(simulator("10 rpm"), "reason=spend_limit, retry-after=5")

    assert 429 == response.status_code
    assert "retry-after" not in response.headers
    assert response.json()["error"]["details"] == {
        "error_code": "enforced_spend_limit_reached"
    }


def test_too_steep_a_rise_names_its_code_and_when_to_come_back() -> None:
    response = messages(simulator("10 rpm"), "reason=slow_down")

    assert 429 == response.status_code
    assert "1" == response.headers["retry-after"]
    assert {"error_code": "ramp_limit_exceeded"} == response.json()["error"]["details"]


def test_a_stream_is_named_events_whose_usage_is_cumulative() -> None:
    response = messages(simulator("10 rpm"), "output=2, cached=4", stream=True)
    read = events(response)
    usage = read[0][1]["message"]["usage"]

    assert [name for name, _ in read] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert [name for name, _ in read] == [data["type"] for _, data in read]
    assert SAY_HELLO_TOKENS - 4 == usage["input_tokens"]  # of what was not cached
    assert 4 == usage["cache_read_input_tokens"]
    assert 1 == usage["output_tokens"]
    assert {"output_tokens": 2} == read[6][1]["usage"]
    assert "end_turn" == read[6][1]["delta"]["stop_reason"]


def test_a_stream_that_fails_ends_in_an_error_event() -> None:
    response = messages(simulator("10 rpm"), "error=1", stream=True)
    name, data = events(response)[-1]

    assert 200 == response.status_code
    assert "error" == name
    assert data == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "Overloaded"},
    }


def test_output_takes_nothing_at_admission_and_counts_when_generated() -> None:
    clock = ManualClock()
    provider = simulator("1000 otpm", clock=clock)
    messages(provider, "output=900", max_tokens=100_000)
    second = messages(provider, "output=300", max_tokens=100_000)  # 100 left: begins
    third = messages(provider)  # 200 in debt: does not
    clock.advance(12)
    fourth = messages(provider, "output=1")

    assert 200 == second.status_code
    assert 429 == third.status_code
    assert "12" == third.headers["retry-after"]
    assert 200 == fourth.status_code


def test_input_is_guessed_at_admission_and_corrected_when_known() -> None:
    clock = ManualClock()
    provider = simulator("1000 itpm", clock=clock)
    chinese = [{"role": "user", "content": "你" * 1200}]  # guessed 300, truly 906
    messages(provider, messages=chinese)
    refused = messages(provider, messages=chinese)

    assert 429 == refused.status_code
    assert "13" == refused.headers["retry-after"]  # 206 lacking of 1000 a minute


def test_count_tokens_tells_the_input_and_counts_against_no_limit() -> None:
    provider = simulator("1 rpm")
    body = {"model": "claude-x", "messages": ROLES}
    counted = ask(provider, "/v1/messages/count_tokens", body)

    assert counted.json() == {"input_tokens": SAY_HELLO_TOKENS}
    assert 200 == messages(provider).status_code


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "poet", "content": "x"}]}, "messages.0"),
        ({"stream": 1}, "stream"),
    ],
)
def test_a_request_that_makes_no_sense_is_a_400_that_names_the_field(
    fields: dict[str, Any], said: str
) -> None:
    response = messages(simulator("10 rpm"), **fields)

    assert 400 == response.status_code
    assert said in response.json()["error"]["message"]


def test_a_request_without_a_version_is_a_400() -> None:
    provider = simulator("10 rpm")

    async def send() -> httpx2.Response:
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(provider), base_url="http://simulated"
        ) as client:
            body = {"model": "m", "max_tokens": 5, "messages": ROLES}
            headers = {"authorization": f"Bearer {KEY}"}  # a bearer does as well
            return await client.post("/v1/messages", json=body, headers=headers)

    response = asyncio.run(send())

    assert 400 == response.status_code
    assert "anthropic-version" in response.json()["error"]["message"]


def test_models_are_listed_and_count_against_no_limit() -> None:
    provider = simulator("1 rpm")
    listed = ask(provider, "/v1/models").json()

    assert listed["first_id"] == listed["data"][0]["id"]
    assert 200 == messages(provider).status_code


def test_a_slot_that_is_lacking_is_told_as_a_limit_of_connections() -> None:
    provider = simulator("1 concurrent")

    async def two() -> list[httpx2.Response]:
        calls = [asyncio.to_thread(messages, provider, "latency=0.3") for _ in "ab"]
        return sorted(await asyncio.gather(*calls), key=lambda one: one.status_code)

    served, refused = asyncio.run(two())

    assert 200 == served.status_code
    assert "concurrent connections has exceeded" in refused.json()["error"]["message"]
    assert "retry-after" not in refused.headers


def test_without_usage_on_cue_an_answer_has_none() -> None:
    body = messages(simulator("10 rpm"), "no-usage").json()
    stream = messages(simulator("10 rpm"), "no-usage, output=2", stream=True)
    delta = dict(events(stream))["message_delta"]

    assert "usage" not in body
    assert "usage" not in delta


def test_signs_of_life_are_pings() -> None:
    stream = messages(simulator("10 rpm"), "keep-alive=2, output=1", stream=True)

    assert ["ping", "ping", "message_start"] == [name for name, _ in events(stream)][:3]


def test_a_limit_that_is_not_counted_is_not_told() -> None:
    response = messages(simulator("10 rpm"))

    assert "anthropic-ratelimit-requests-limit" in response.headers
    assert "anthropic-ratelimit-output-tokens-limit" not in response.headers
    assert "anthropic-ratelimit-tokens-limit" not in response.headers
