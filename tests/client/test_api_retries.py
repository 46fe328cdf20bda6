"""When a call is sent again, when not, and how long it waits: in virtual time."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from typing import Any

import httpx2
import pytest

from ratekeeper import (
    AsyncClient,
    BillingStopped,
    LimitExceeded,
    NeverPossible,
    ProviderError,
    ProviderOverloaded,
    ProviderThrottled,
    RatekeeperError,
)
from tests.client import clients
from tests.client.clients import OK, Told, error, virtual

JITTER_S = 1.0  # the cap of the first wait's jitter, at the default back-off


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _fail(ai: clients.Ai, **body: Any) -> RatekeeperError:
    with pytest.raises(RatekeeperError) as caught:
        ai.chat(**body)
    return caught.value


def test_a_call_turned_away_for_now_is_sent_again(kind: str) -> None:
    told = Told(error(429), error(503), OK)
    with virtual(kind, told) as ai:
        answer = ai.chat()

    assert OK[2] == answer
    assert 3 == len(told.requests)
    assert 1 == len({request.content for request in told.requests})


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422])
def test_what_would_fail_again_is_sent_once(kind: str, status: int) -> None:
    told = Told(error(status))
    with virtual(kind, told) as ai:
        failed = _fail(ai)

    assert 1 == len(told.requests)
    assert 1 == getattr(failed, "attempts", None)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_the_last_error_is_raised_with_the_attempts_and_without_a_last_wait(
    kind: str, status: int
) -> None:
    told = Told(error(status))
    with virtual(kind, told) as ai:
        failed = _fail(ai)
        ended_s = told.clock.now_us() / 1e6

    assert isinstance(failed, ProviderError)
    assert (status, 3, 3) == (failed.status, failed.attempts, len(told.requests))
    assert told.at_s[-1] == ended_s


HINTS = {
    "whole seconds": ({"retry_after": "5"}, 5.0),
    "a fraction": ({"retry_after": "1.5"}, 1.5),
    "a date against the answer's own": (
        {
            "date": "Sun, 06 Nov 1994 08:49:37 GMT",
            "retry_after": "Sun, 06 Nov 1994 08:49:44 GMT",
        },
        7.0,
    ),
    "an old form of date": (
        {
            "date": "Sun, 06 Nov 1994 08:49:37 GMT",
            "retry_after": "Sun Nov  6 08:49:40 1994",
        },
        3.0,
    ),
    "milliseconds": ({"retry_after_ms": "2500"}, 2.5),
    "milliseconds before seconds": ({"retry_after_ms": "400", "retry_after": "1"}, 0.4),
    "the error's own words": ({"message": "Please try again in 4.25s."}, 4.25),
}


@pytest.mark.parametrize(("fields", "hint_s"), HINTS.values(), ids=HINTS)
def test_a_hint_is_the_floor_of_the_wait(
    kind: str, fields: dict[str, str], hint_s: float
) -> None:
    told = Told(error(429, **fields), OK)
    with virtual(kind, told) as ai:
        ai.chat()

    assert hint_s <= told.waits_s[0] <= hint_s + JITTER_S


@pytest.mark.parametrize(
    "value", ["", "soon", "-1", "nan", "inf", "1e9", "2678401", "5, 7", "0x10"]
)
def test_an_absurd_hint_is_no_hint(kind: str, value: str) -> None:
    told = Told(error(529, retry_after=value), OK)
    with virtual(kind, told) as ai:
        ai.chat()

    assert told.waits_s[0] <= JITTER_S


def test_a_hint_of_nothing_leaves_the_back_off_as_the_floor(kind: str) -> None:
    told = Told(error(529, retry_after="0"))
    with virtual(kind, told, attempts=6) as ai:
        _fail(ai)

    assert 5 == len(told.waits_s)
    assert all(wait >= 0.5 * 2**i for i, wait in enumerate(told.waits_s[:4])), (
        told.waits_s
    )


def test_waits_without_a_hint_double_their_bound(kind: str) -> None:
    told = Told(error(500))
    with virtual(kind, told, attempts=7, draw=random.Random(7)) as ai:
        _fail(ai)

    assert all(wait <= min(20, 2**i) for i, wait in enumerate(told.waits_s)), (
        told.waits_s
    )
    assert max(told.waits_s) > 1


def test_a_hint_beyond_the_deadline_fails_at_once_with_the_true_figure(
    kind: str,
) -> None:
    told = Told(error(429, retry_after="40"))
    with virtual(kind, told) as ai:
        failed = _fail(ai, timeout=30)
        took_s = told.clock.now_us() / 1e6 - told.at_s[0]

    assert isinstance(failed, ProviderThrottled)
    assert (40.0, 1, 0.0) == (failed.retry_after_s, failed.attempts, took_s)


def test_without_a_deadline_a_long_hint_is_waited_for(kind: str) -> None:
    told = Told(error(429, retry_after="3600"), OK)
    with virtual(kind, told, timeout=None) as ai:
        ai.chat()

    assert 3600 <= told.waits_s[0] <= 3601


def test_no_retry_is_asked_for_by_the_provider(kind: str) -> None:
    told = Told(error(429, x_should_retry="false"))
    with virtual(kind, told) as ai:
        failed = _fail(ai)

    assert isinstance(failed, ProviderThrottled)
    assert 1 == len(told.requests)


@pytest.mark.parametrize(
    "code", ["insufficient_quota", "credit_balance_exhausted", "billing_not_active"]
)
def test_money_is_not_waited_for(kind: str, code: str) -> None:
    told = Told(error(429, code))
    with virtual(kind, told) as ai:
        failed = _fail(ai)

    assert isinstance(failed, BillingStopped)
    assert 1 == len(told.requests)


def test_a_ban_without_an_end_is_not_asked_about_again(kind: str) -> None:
    told = Told(error(429, "account_suspended"))
    with virtual(kind, told) as ai:
        failed = _fail(ai)

    assert isinstance(failed, ProviderThrottled)
    assert 1 == len(told.requests)


def test_what_the_provider_calls_too_large_is_never_possible(kind: str) -> None:
    text = (
        "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, "
        "Requested 41210."
    )
    told = Told(error(429, "rate_limit_exceeded", text))
    with virtual(kind, told) as ai:
        failed = _fail(ai)

    assert isinstance(failed, NeverPossible)
    assert ("tokens/minute", 1) == (failed.limit, failed.attempts)
    assert isinstance(failed.__cause__, ProviderError)
    assert text in failed.__cause__.body
    assert "lower max_tokens" in str(failed)


def test_an_overload_is_named_as_such(kind: str) -> None:
    told = Told(error(529, retry_after="2"))
    with virtual(kind, told, attempts=1) as ai:
        failed = _fail(ai)

    assert isinstance(failed, ProviderOverloaded)
    assert 2.0 == failed.retry_after_s


def test_successes_pay_for_retries_and_failures_do_not(kind: str) -> None:
    told = Told(error(500))
    with virtual(kind, told, attempts=2, backoff=0) as ai:
        for _ in range(60):
            _fail(ai)

    # The budget of 500 pays for 35 retries at 14 each; then every call is sent once.
    assert 60 + 35 == len(told.requests)


@pytest.mark.parametrize(
    "unsent",
    [
        httpx2.ConnectError(""),
        httpx2.ConnectTimeout(""),
        httpx2.PoolTimeout(""),
        httpx2.ProxyError(""),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_was_never_sent_is_sent_again(kind: str, unsent: Exception) -> None:
    told = Told(unsent, unsent, OK)
    with virtual(kind, told) as ai:
        answer = ai.chat()

    assert OK[2] == answer


def test_attempts_of_one_never_send_twice(kind: str) -> None:
    told = Told(error(500))
    with virtual(kind, told, attempts=1) as ai:
        _fail(ai)

    assert 1 == len(told.requests)


def test_each_attempt_takes_a_grant_of_its_own(kind: str) -> None:
    told = Told(error(500), error(500), OK)
    with virtual(kind, told, limits=["10 requests/day"]) as ai:
        ai.chat()
        used = ai.used()

    assert [3] == used


def test_a_deadline_lost_in_line_is_refused_at_once(kind: str) -> None:
    told = Told(OK)
    with virtual(kind, told, limits=["1 request/minute using fixed-window"]) as ai:
        ai.chat()
        failed = _fail(ai, timeout=5)
        took_s = told.clock.now_us() / 1e6 - told.at_s[0]

    assert isinstance(failed, LimitExceeded)
    assert failed.retry_after_s > 5
    assert (0, 0.0) == (failed.attempts, took_s)


def test_the_line_and_the_waits_share_one_deadline(kind: str) -> None:
    told = Told(OK, error(500, retry_after="8"))
    with virtual(kind, told, limits=["6 requests/minute using leaky-bucket"]) as ai:
        ai.chat()
        began_s = told.clock.now_us() / 1e6
        failed = _fail(ai, timeout=15)
        took_s = told.clock.now_us() / 1e6 - began_s

    # 10 s in line; of the 5 s left a wait of 8 s is not even begun.
    assert isinstance(failed, ProviderError)
    assert 500 == failed.status
    assert 10 <= took_s < 15
    assert 2 == len(told.requests)


def test_a_retry_refused_in_line_keeps_the_error_before_it(kind: str) -> None:
    told = Told(error(500))
    limit = "1 request/minute using fixed-window"
    with virtual(kind, told, limits=[limit], backoff=0) as ai:
        failed = _fail(ai, timeout=5)

    assert isinstance(failed, LimitExceeded)
    assert 1 == failed.attempts
    assert isinstance(failed.__cause__, ProviderError)


def test_there_is_one_line_in_the_log_for_each_retry(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(error(529, retry_after="3"), error(500), OK)
    with caplog.at_level(logging.DEBUG, "ratekeeper"), virtual(kind, told) as ai:
        ai.chat()

    lines = [record.getMessage() for record in caplog.records]
    assert 2 == len(lines)
    assert lines[0].startswith("attempt 1 of 3 failed (api.openai.com answered 529")
    assert lines[1].startswith("attempt 2 of 3 failed (api.openai.com answered 500")


def test_there_is_one_line_in_the_log_for_each_wait_in_line(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(OK)
    limit = "6 requests/minute using leaky-bucket"
    with (
        caplog.at_level(logging.DEBUG, "ratekeeper"),
        virtual(kind, told, limits=[limit]) as ai,
    ):
        ai.chat()
        ai.chat()

    lines = [record.getMessage() for record in caplog.records]
    assert 1 == len(lines)
    assert lines[0].startswith("waited 10 s for the limit")


def _seeds(told: Told) -> list[int]:
    return [json.loads(request.content)["seed"] for request in told.requests]


def test_another_attempt_stands_at_the_head_of_the_line() -> None:
    told = Told(error(500), OK)
    limit = "6 requests/minute using leaky-bucket"
    with virtual("async", told, limits=[limit], timeout=None) as ai:
        requests = [{**clients.CHAT, "seed": n} for n in range(3)]
        ai.batch(requests, concurrency=3)

    assert [0, 0, 1, 2] == _seeds(told)


def test_a_client_of_a_higher_class_is_served_first() -> None:
    told = Told(OK)
    limit = "6 requests/minute using leaky-bucket"
    shared: dict[str, Any] = {"limits": [limit], "timeout": None, "name": "ours"}
    with virtual("async", told, priority="batch", **shared) as ai:
        other = AsyncClient(
            "openai",
            api_key=clients.KEY,
            store=ai.store,
            transport=httpx2.MockTransport(told),
            priority="interactive",
            **shared,
        )

        async def call(client: AsyncClient, seed: int) -> None:
            await client.chat_completion(**clients.CHAT, seed=seed)

        async def rush(client: AsyncClient) -> None:
            async with other, asyncio.TaskGroup() as group:
                for seed in range(3):
                    group.create_task(call(client, seed))
                await asyncio.sleep(1)
                group.create_task(call(other, 3))

        ai.do(rush)

    assert [0, 3, 1, 2] == _seeds(told)


def test_successes_fill_the_budget_of_retries(kind: str) -> None:
    failures = [error(500)] * 200
    told = Told(*failures, *[OK] * 14, error(500))
    with virtual(kind, told, attempts=2, backoff=0) as ai:
        while len(told.requests) < 200:
            _fail(ai)
        spent = len(told.requests)
        for _ in range(14):
            ai.chat()
        _fail(ai)

    # Fourteen successes, and the few points that were left, pay for one retry.
    assert spent + 14 + 2 == len(told.requests)
