"""A provider's account through the door: its cold start, its refunds, its refusals."""

from __future__ import annotations

import pytest

from ratekeeper import (
    Algorithm,
    ConfigError,
    Denied,
    Grant,
    Limiter,
    MemoryStore,
    Reading,
)
from ratekeeper.core.policy import Account
from ratekeeper.core.units import DAY, MINUTE
from ratekeeper.testing import ManualClock

BUCKET = Account(unsaid=Algorithm.TOKEN_BUCKET, refunds=frozenset(["tokens"]))


def limited(*limits: str, account: Account | str | None) -> tuple[Limiter, ManualClock]:
    clock = ManualClock(auto=True)
    return Limiter(*limits, store=MemoryStore(clock=clock), account=account), clock


def grants(limiter: Limiter, **cost: int) -> list[Grant]:
    answers = [
        limiter.try_acquire(**cost)  # type: ignore[arg-type]  # costs alone
        for _ in range(200)
    ]
    return [answer for answer in answers if isinstance(answer, Grant)]


@pytest.mark.parametrize("algorithm", list(Algorithm)[:4])
def test_a_process_that_starts_over_and_over_draws_no_second_burst(
    algorithm: Algorithm,
) -> None:
    account = Account(unsaid=algorithm)
    limiter, clock = limited("60 rpm", account=account)

    assert 1 == len(grants(limiter))

    clock.advance(60)
    full = 1 if algorithm is Algorithm.LEAKY_BUCKET else 60

    assert full >= len(grants(limiter)) >= min(full, 59)


@pytest.mark.parametrize("algorithm", list(Algorithm)[:5])
def test_the_first_call_of_a_process_goes_at_once(algorithm: Algorithm) -> None:
    """What room is kept for calls on their way must not hold up the only one."""
    account = Account(unsaid=algorithm, guard_us=250_000)
    limiter, _ = limited("60 rpm", account=account)

    assert 0.0 == limiter.acquire(timeout=0).waited_s


def test_an_answer_that_says_what_is_left_ends_the_cold_start() -> None:
    limiter, _ = limited("60 rpm", account=BUCKET)
    (first,) = grants(limiter)
    first.answered([Reading(unit="requests", remaining=40, window_us=MINUTE)])

    assert 40 == len(grants(limiter))


def test_an_answer_about_another_limit_confirms_nothing() -> None:
    limiter, _ = limited("60 rpm", account=BUCKET)
    (first,) = grants(limiter)
    tokens = Reading(unit="tokens", remaining=40)
    daily = Reading(unit="requests", remaining=40, window_us=DAY)
    first.answered([tokens, daily])

    assert not grants(limiter)


def test_a_warm_limit_is_not_changed_by_what_an_answer_says() -> None:
    limiter, _ = limited("60 rpm", account=None)
    grant = limiter.acquire()
    grant.answered([Reading(unit="requests", remaining=5)])

    assert 59 == len(grants(limiter))


def test_an_account_gives_back_what_its_provider_gives_back() -> None:
    for refunds, used in ((frozenset({"tokens"}), 10), (frozenset[str](), 100)):
        account = Account(unsaid=Algorithm.SLIDING_WINDOW, refunds=refunds, cold=False)
        limiter, _ = limited("1000 tpm", "5 concurrent", account=account)
        limiter.acquire(tokens=100).settle(tokens=10)

        assert used == limiter.status()["1000 tokens/minute"].used
        assert 0 == limiter.status()["5 concurrent"].used


def test_a_refusal_pauses_the_limit_of_the_window_it_names() -> None:
    limiter, clock = limited("60 rpm", "1000 rpd", "$5/day", account=None)
    limiter.acquire(usd="0.5").refused(90, unit="requests", window_s=86_400)
    denied = limiter.try_acquire(usd=0)

    assert isinstance(denied, Denied)
    assert ("1000 requests/day", 90.0) == (denied.limit, denied.retry_after_s)
    assert 0 == limiter.status()["$5/day"].used

    clock.advance(90)

    assert limiter.try_acquire(usd=0)


@pytest.mark.parametrize(
    ("limit", "cost"), [("5 concurrent", {}), ("$5/day", {"usd": "0.1"})]
)
def test_a_refusal_pauses_whatever_limits_there_are(
    limit: str, cost: dict[str, str]
) -> None:
    limiter, clock = limited(limit, account=None)
    limiter.acquire(**cost).refused(3)  # type: ignore[arg-type]  # costs alone

    assert not limiter.try_acquire(**cost)  # type: ignore[arg-type]  # costs alone

    clock.advance(3)

    assert limiter.try_acquire(**cost)  # type: ignore[arg-type]  # costs alone


def test_a_refusal_that_says_at_once_pauses_as_one_that_says_nothing() -> None:
    told = []
    for hint in (None, 0.0, 0.25):
        limiter, _ = limited("60 rpm", account=None)
        limiter.acquire().refused(hint)
        denied = limiter.try_acquire()
        assert isinstance(denied, Denied)
        told.append(denied.retry_after_s)

    assert [1.0, 1.0, 0.25] == told


def test_a_refusal_may_say_what_was_used() -> None:
    limiter, _ = limited("1000 tpm", account=None)
    limiter.acquire(tokens=100).refused(1, tokens=0)

    assert 0 == limiter.status()["1000 tokens/minute"].used


def test_a_shorter_hint_does_not_end_a_longer_pause() -> None:
    limiter, _ = limited("60 rpm", account=None)
    first, second = limiter.acquire(), limiter.acquire()
    first.refused(30)
    second.refused(2)

    assert 30.0 == limiter.acquire().waited_s


def test_a_limiter_knows_the_account_of_a_provider_by_its_name() -> None:
    limiter = Limiter("60 rpm", account="anthropic")
    nameless = Limiter("60 rpm", account="https://llm.example.com/v1")

    assert Algorithm.TOKEN_BUCKET is limiter.limits[0].algorithm
    assert Algorithm.PACED is nameless.limits[0].algorithm
    assert 1 == len(grants(limiter))
    assert 1 == len(grants(nameless))


def test_a_window_of_an_account_has_room_for_a_call_on_its_way() -> None:
    """The first calls may arrive late, and those a window later early."""
    text = "20 requests/2s using sliding-window"

    assert 2_000_000 == least_span_us(*limited(text, account=None), calls=21)
    assert 2_100_000 < least_span_us(*limited(text, account="openai"), calls=21)


def least_span_us(limiter: Limiter, clock: ManualClock, *, calls: int) -> int:
    """Return the least time in which so many calls in a row were let go."""
    went_us = []
    for _ in range(4 * calls):
        limiter.acquire()
        went_us.append(clock.now_us())
    return min(b - a for a, b in zip(went_us, went_us[calls - 1 :], strict=False))


def test_an_account_at_no_known_provider_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="did you mean 'anthropic'"):
        Limiter("60 rpm", account="antropic")
