"""One attempt, without HTTP: what each ending means, and that only the first counts."""

from __future__ import annotations

import gc
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.client.attempt import Attempt, Counter, reserve
from ratekeeper.core.limits import Algorithm, Limit
from ratekeeper.core.policy import Account
from ratekeeper.errors import ConfigError, LimitExceeded, NeverPossible
from ratekeeper.limiter import Limiter
from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.facts import Kind
from ratekeeper.stores.memory import MemoryStore
from ratekeeper.testing import ManualClock
from tests.client.wire import completion, delta, events, usage

if TYPE_CHECKING:
    from collections.abc import Callable

BODY = json.dumps(
    {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 90}
).encode()
JSON = {"content-type": "application/json"}
SSE = {"content-type": "text/event-stream"}


class Case:
    """A limiter on a manual clock, and one attempt under it."""

    def __init__(
        self, *limits: str, provider: str = "deepseek", **options: Any
    ) -> None:
        self.clock = ManualClock()
        store = MemoryStore(clock=self.clock)
        said = limits or ("10 rpm", "1k tpm", "3 concurrent")
        self.limiter = Limiter(*said, store=store, **options)
        self.counter = Counter(self.limiter, find_provider(provider))

    def ask(self, body: bytes = BODY, **options: Any) -> Any:
        path = options.pop("path", "/v1/chat/completions")
        return self.counter.ask(
            "POST", path, body, timeout=0, again=False, options=options
        )

    def begin(self) -> Attempt:
        ask = self.ask()
        return Attempt(self.counter, ask, self.limiter.acquire(**ask.terms))

    def used(self) -> dict[str, Any]:
        return {
            name.split()[1].split("/")[0]: row.used
            for name, row in self.limiter.status().items()
        }


def flow(attempt: Attempt, *parts: bytes, headers: dict[str, str] = SSE) -> None:
    attempt.answered(headers)
    for part in parts:
        attempt.feed(part)


# Reserving.


AMOUNTS = st.integers(0, 10**6)


@given(AMOUNTS, AMOUNTS, st.integers(1, 10**6), st.integers(1, 10**6))
def test_no_more_is_reserved_than_a_limit_holds_nor_less_than_is_charged(
    charged: int, more: int, minute: int, day: int
) -> None:
    limits = [Limit.parse(f"{minute} tpm"), Limit.parse(f"{day} tpd")]
    amount = reserve(limits, {"tokens": charged}, {"tokens": charged + more})["tokens"]

    assert charged <= amount <= charged + more
    assert amount == charged or amount <= min(minute, day)


def test_a_unit_that_a_request_does_not_touch_costs_nothing() -> None:
    case = Case()

    terms = case.ask(b"", path="/v1/models").terms

    assert 0 == terms["tokens"]


def test_a_call_the_provider_cannot_admit_is_never_possible() -> None:
    case = Case("50 tpm")
    ask = case.ask()

    with pytest.raises(NeverPossible):
        case.limiter.acquire(**ask.terms)


def test_limits_of_other_limiters_grant_together_with_these() -> None:
    case = Case()
    team = Limiter("1 rpm", "200 tpm", store=case.limiter._store)
    ask = case.ask(also=[(team, "search")])
    case.limiter.acquire(**ask.terms).release()

    with pytest.raises(LimitExceeded):
        case.limiter.acquire(**ask.terms)
    assert 1 == case.used()["requests"]


def test_a_limit_no_request_states_is_refused() -> None:
    with pytest.raises(ConfigError, match="counts images"):
        Case("5 images/day")


# Endings.


def test_a_call_never_sent_gives_everything_back() -> None:
    case = Case()
    case.begin().unsent()

    assert {"requests": 0, "tokens": 0, "concurrent": 0} == case.used()


def test_a_call_that_got_no_answer_keeps_its_reservation() -> None:
    case = Case()
    attempt = case.begin()
    reserved = case.used()["tokens"]
    attempt.unanswered()

    assert {"requests": 1, "tokens": reserved, "concurrent": 0} == case.used()


def test_usage_in_the_answer_is_what_counts() -> None:
    case = Case()
    attempt = case.begin()
    flow(attempt, completion(8, 5), headers=JSON)
    attempt.end()

    assert {"requests": 1, "tokens": 13, "concurrent": 0} == case.used()


def test_usage_above_the_reservation_is_charged() -> None:
    case = Case()
    attempt = case.begin()
    flow(attempt, completion(400, 300), headers=JSON)
    attempt.end()

    assert 700 == case.used()["tokens"]


def test_a_cut_stream_counts_its_input_and_what_flowed() -> None:
    case = Case()
    attempt = case.begin()
    flow(attempt, *events(delta("x" * 40), done=False))
    attempt.end()

    assert 10 < case.used()["tokens"] < 50


def test_a_stream_that_never_flowed_keeps_its_reservation() -> None:
    case = Case()
    attempt = case.begin()
    reserved = case.used()["tokens"]
    flow(attempt)
    attempt.end()

    assert reserved == case.used()["tokens"]


def test_an_account_that_gives_nothing_back_keeps_the_tokens_of_a_429() -> None:
    case = Case(provider="openai", account=Account(cold=False))
    case.begin().judge(429, {"retry-after": "2"}, b"{}")

    assert 90 == case.used()["tokens"]


def test_an_account_that_gives_back_keeps_none() -> None:
    account = Account(cold=False, refunds=frozenset(["tokens"]))
    case = Case(provider="openai", account=account)
    case.begin().judge(429, {"retry-after": "2"}, b"{}")

    assert 0 == case.used()["tokens"]


def test_a_429_without_a_hint_pauses_for_a_second() -> None:
    case = Case()
    verdict = case.begin().judge(429, {}, b"")

    assert Kind.THROTTLED is verdict.kind
    assert 1.0 == case.limiter.try_acquire(tokens=1).retry_after_s  # type: ignore[union-attr]


def test_a_hint_beyond_a_month_is_taken_for_none() -> None:
    case = Case()
    case.begin().judge(429, {"retry-after": "999999999"}, b"")

    assert 1.0 == case.limiter.try_acquire(tokens=1).retry_after_s  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("headers", "ends"),
    [
        ({"remaining": "59"}, True),
        ({"remaining": "59", "limit": "60"}, True),
        ({"remaining": "0", "limit": "60"}, False),
        ({"remaining": "199", "limit": "200"}, False),  # the day's
        ({"limit": "60"}, False),
        ({"remaining": "many"}, False),
        ({}, False),
    ],
)
def test_headers_that_speak_of_a_limit_end_its_cold_start(
    headers: dict[str, str], ends: bool
) -> None:
    account = Account(unsaid=Algorithm.TOKEN_BUCKET)
    case = Case("60 rpm", provider="openai", account=account)
    attempt = case.begin()

    assert not case.limiter.try_acquire()

    said = {f"x-ratelimit-{name}-requests": text for name, text in headers.items()}
    attempt.answered(said)
    attempt.end()

    assert ends == bool(case.limiter.try_acquire())


def test_an_error_inside_a_stream_settles_by_what_flowed_before_it() -> None:
    case = Case()
    attempt = case.begin()
    error = {"error": {"code": "rate_limit_exceeded", "message": "later"}}
    flow(attempt, *events(delta("x" * 40), error, done=False))
    attempt.end()

    assert 10 < case.used()["tokens"] < 50
    assert not case.limiter.try_acquire(tokens=1)


def test_an_overload_inside_a_stream_pauses_nobody() -> None:
    case = Case()
    attempt = case.begin()
    error = {"error": {"code": "overloaded_error", "message": "busy"}}
    flow(attempt, *events(error, done=False))
    attempt.end()

    assert case.limiter.try_acquire(tokens=1)


ENDINGS: dict[str, Callable[[Attempt], object]] = {
    "unsent": lambda attempt: attempt.unsent(),
    "unanswered": lambda attempt: attempt.unanswered(),
    "throttled": lambda attempt: attempt.judge(429, {}, b""),
    "broken": lambda attempt: attempt.judge(500, {}, b""),
    "end": lambda attempt: attempt.end(),
    "answered": lambda attempt: flow(attempt, *events(usage(8, 5))),
    "forgotten": Attempt.__del__,
}


@given(st.lists(st.sampled_from(sorted(ENDINGS)), min_size=1, max_size=6))
def test_whatever_comes_first_settles_and_the_rest_changes_nothing(
    order: list[str],
) -> None:
    case = Case()
    attempt = case.begin()
    after_first: dict[str, Any] | None = None
    for name in order:
        ENDINGS[name](attempt)
        if not attempt._open and after_first is None:
            after_first = case.used()
    if after_first is not None:
        assert after_first == case.used()
        assert 0 == after_first["concurrent"]
    del attempt

    assert 0 == case.used()["concurrent"]


def test_an_attempt_that_is_forgotten_settles_itself() -> None:
    case = Case()
    attempt = case.begin()
    flow(attempt, *events(delta("x" * 40), done=False))
    del attempt

    assert 0 == case.used()["concurrent"]
    assert 0 < case.used()["tokens"] < 50


def test_attempts_in_garbage_cycles_settle_wherever_they_are_collected() -> None:
    # The collector may run anywhere, under the store's lock as well.
    case = Case("1M rpm", "1B tpm", "1000 concurrent")
    threshold = gc.get_threshold()
    gc.set_threshold(3, 2, 2)
    try:
        for _ in range(500):
            _forget(case.begin())
    finally:
        gc.set_threshold(*threshold)
    gc.collect()

    assert 0 == case.used()["concurrent"]
    assert 500 == case.used()["requests"]


def _forget(attempt: Attempt) -> None:
    cycle: list[Any] = [attempt]
    cycle.append(cycle)
