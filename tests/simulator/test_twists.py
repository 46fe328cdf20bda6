"""Providers that are OpenAI with a twist: what each says that OpenAI does not."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from ratekeeper.simulator.server import Simulator
from ratekeeper.simulator.twists import TWISTS
from ratekeeper.testing import ManualClock
from tests.simulator.asking import ROLES, ask, events

# The clock of these tests starts at 2027-01-15 08:00:00 UTC.


def chat(simulator: Simulator, cue: str = "", **fields: Any) -> httpx2.Response:
    body = {"model": "m", "messages": ROLES, **fields}
    path = f"{simulator.dialect.base_path}/chat/completions"
    return ask(simulator, path, body, cue=cue)


def refused(name: str, *limits: str, **fields: Any) -> httpx2.Response:
    """Ask until a call is refused."""
    simulator = Simulator(name, limits, enforce="fixed-window", clock=ManualClock())
    response = chat(simulator, **fields)
    while response.status_code == 200:
        response = chat(simulator, **fields)
    return response


@pytest.mark.parametrize("name", TWISTS)
def test_each_answers_below_its_own_path_in_openais_shape(name: str) -> None:
    simulator = Simulator(name)
    answer = chat(simulator, "output=4").json()

    assert "chat.completion" == answer["object"]
    assert 4 == answer["usage"]["completion_tokens"]
    assert 200 == ask(simulator, f"{simulator.dialect.base_path}/models").status_code


@pytest.mark.parametrize("name", TWISTS)
def test_each_has_limits_of_its_own_where_none_are_given(name: str) -> None:
    assert len(TWISTS[name].usual_limits) == len(Simulator(name).limits)


def test_xai_puts_its_sentence_where_others_have_an_object() -> None:
    response = refused("xai", "2 rpm")

    assert 429 == response.status_code
    assert "resource-exhausted" == response.json()["code"]
    assert response.json()["error"].endswith("Requests per Minute (actual/limit): 2/2.")
    assert 0 < int(response.headers["retry-after"]) <= 60


def test_xai_takes_a_wrong_key_for_a_bad_request() -> None:
    response = chat(Simulator("xai"), "reason=unauthorized")

    assert (400, "invalid-argument") == (response.status_code, response.json()["code"])


def test_openrouter_writes_its_headers_into_the_body_too() -> None:
    response = refused("openrouter", "2 requests/day resets 00:00 UTC")
    error = response.json()["error"]
    told = {
        "X-RateLimit-Limit": "2",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "1800057600000",  # midnight, in milliseconds
    }

    assert 429 == response.status_code == error["code"]
    assert error["message"].startswith("Rate limit exceeded: free-models-per-day. Add")
    assert {"error_type": "rate_limit_exceeded", "headers": told} == error["metadata"]
    assert told == {name: response.headers[name] for name in told}


def test_openrouter_names_the_limit_of_a_minute() -> None:
    error = refused("openrouter", "2 rpm").json()["error"]

    assert error["message"].startswith("Rate limit exceeded: free-models-per-min")


def test_openrouter_tells_a_budget_in_flight_by_402() -> None:
    simulator = Simulator("openrouter", ["1 concurrent"])
    response = chat(simulator, "reason=throttled")
    error = response.json()["error"]

    assert (402, "1") == (response.status_code, response.headers["retry-after"])
    assert {"reason": "in_flight_budget_exhausted"} == error["metadata"]


def test_openrouter_shows_no_limits_while_none_is_reached() -> None:
    response = chat(Simulator("openrouter"))

    assert not [name for name in response.headers if "ratelimit" in name]


def test_openrouter_ends_a_stream_that_fails_with_a_choice_that_says_so() -> None:
    cue = "error=1, reason=overloaded, output=4"
    *_, (_, last) = events(chat(Simulator("openrouter"), cue, stream=True))

    assert 503 == last["error"]["code"]
    assert "error" == last["choices"][0]["finish_reason"]


def test_moonshot_counts_requests_down_and_names_what_is_reached() -> None:
    simulator = Simulator("moonshot", ["200 rpm"], clock=ManualClock())
    first = chat(simulator)
    response = refused("moonshot", "2 rpm")
    error = response.json()["error"]

    assert ("200", "199") == (
        first.headers["x-ratelimit-limit"],
        first.headers["x-ratelimit-remaining"],
    )
    assert "rate_limit_reached_error" == error["type"]
    assert "request reached organization max RPM: 2, please try" in error["message"]


def test_moonshot_ends_a_stream_with_the_usage_inside_the_choice() -> None:
    *_, (_, last), (_, done) = events(
        chat(Simulator("moonshot"), "output=7", stream=True)
    )

    assert "[DONE]" == done
    assert "usage" not in last
    assert 7 == last["choices"][0]["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ("2 rpm", "1303"),
        ("2 requests/day", "1304"),
        ("2 requests/5 hours", "1308"),
        ("2 requests/week", "1310"),
        ("90 tpm", "1302"),
    ],
)
def test_zhipu_names_a_limit_by_a_number(limit: str, code: str) -> None:
    response = refused("zhipu", limit)

    assert (429, code) == (response.status_code, response.json()["error"]["code"])


def test_zhipu_tells_a_reset_in_beijings_time() -> None:
    error = refused("zhipu", "2 requests/5 hours").json()["error"]

    assert (
        "已达到 5 小时的使用上限。您的限额将在 2027-01-15 21:00:00 重置。"
        == error["message"]
    )


@pytest.mark.parametrize(
    ("reason", "code"),
    [("overloaded", "1305"), ("billing", "1113"), ("banned", "1112")],
)
def test_zhipu_refuses_for_other_reasons_by_429_too(reason: str, code: str) -> None:
    response = chat(Simulator("zhipu"), f"reason={reason}")

    assert (429, code) == (response.status_code, response.json()["error"]["code"])


@pytest.mark.parametrize(
    ("limit", "code"), [("2 rpm", "limit_requests"), ("90 tpm", "insufficient_quota")]
)
def test_dashscope_names_requests_and_tokens_by_code(limit: str, code: str) -> None:
    body = refused("dashscope", limit).json()

    assert code == body["error"]["code"] == body["error"]["type"]
    assert body["request_id"]


def test_dashscope_has_a_name_for_too_steep_a_rise() -> None:
    body = chat(Simulator("dashscope"), "reason=slow_down").json()

    assert "limit_burst_rate" == body["error"]["code"]


@pytest.mark.parametrize(
    ("limit", "kind"),
    [("2 rpm", "dynamic_request_limited"), ("90 tpm", "dynamic_token_limited")],
)
def test_together_tells_the_wait_in_its_reset_alone(limit: str, kind: str) -> None:
    response = refused("together", limit)

    assert kind == response.json()["error"]["type"]
    assert 0 < int(response.headers["x-ratelimit-reset"]) <= 60
    assert "retry-after" not in response.headers


def test_together_ends_a_stream_with_its_usage_unasked() -> None:
    *_, (_, last), _ = events(chat(Simulator("together"), "output=7", stream=True))

    assert 7 == last["usage"]["completion_tokens"]
    assert "stop" == last["choices"][0]["finish_reason"]


def test_fireworks_shows_three_budgets_by_the_second() -> None:
    limits = ["900k itpm", "36k otpm"]
    response = chat(Simulator("fireworks", limits, clock=ManualClock()))
    shown = {
        name.removeprefix("x-ratelimit-"): value
        for name, value in response.headers.items()
        if name.startswith("x-ratelimit-")
    }

    assert {
        "limit-tokens-prompt": "60000",
        "remaining-tokens-prompt": "60000",
        "limit-tokens-cache-adjusted-prompt": "15000",
        "remaining-tokens-cache-adjusted-prompt": "15000",
        "limit-tokens-generated": "600",
        "remaining-tokens-generated": "600",
        "over-limit": "no",
    } == shown


def test_fireworks_says_when_a_budget_is_used_up() -> None:
    response = refused("fireworks", "1000 otpm", max_tokens=600)

    assert 429 == response.status_code
    assert "yes" == response.headers["x-ratelimit-over-limit"]


def test_fireworks_counts_what_is_generated_and_not_what_is_asked_for() -> None:
    simulator = Simulator("fireworks", ["100 otpm"], clock=ManualClock())
    statuses = [
        chat(simulator, "output=30", max_tokens=9000).status_code for _ in range(5)
    ]

    assert [200, 200, 200, 200, 429] == statuses


@pytest.mark.parametrize("name", TWISTS)
def test_what_can_never_pass_is_said_to_be_too_large(name: str) -> None:
    unit = "itpm" if name == "fireworks" else "tpm"
    long = [{"role": "user", "content": "word " * 400}]
    response = chat(Simulator(name, [f"100 {unit}"]), messages=long)

    assert 429 == response.status_code
    assert "Request too large" in json.dumps(response.json())
