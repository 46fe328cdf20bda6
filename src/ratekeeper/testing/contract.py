# ruff: noqa: PLR2004, SIM300 - as in tests: the figures, and expected on the left
"""The contract every store keeps, as a suite that any store can be put through.

Subclass `StoreContract`, say how to make a store, and let pytest collect it:

    class TestMyStore(StoreContract):
        def make_store(self, clock):
            return MyStore(clock=clock)

It speaks to a store through `Limiter` alone. Time is a manual clock that moves when
somebody waits. The class knows no test runner: its tests are plain asserts. It is long
because it is a list of duties.
"""

from __future__ import annotations

import threading
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from ratekeeper.core.decision import Denied
from ratekeeper.core.policy import Account
from ratekeeper.core.reading import Reading
from ratekeeper.core.units import MINUTE
from ratekeeper.errors import (
    BudgetExceeded,
    ConfigError,
    LimitExceeded,
    NeverPossible,
)
from ratekeeper.grant import Grant
from ratekeeper.limiter import Limiter
from ratekeeper.testing.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratekeeper.core.decision import LimitStatus
    from ratekeeper.stores.memory import MemoryStore

RATES = (
    "6 requests/minute",
    "6 requests/minute burst 2",
    "6 requests/minute using fixed-window",
    "6 requests/minute using leaky-bucket",
    "6 requests/minute using paced",
    "6 requests/day resets 00:00",
)
"""A limit of each algorithm that counts."""


class StoreContract:
    """What a store owes its callers."""

    def make_store(self, clock: ManualClock) -> MemoryStore:
        """Return a new and empty store that reads this clock."""
        raise NotImplementedError

    # Tools of the tests.

    def _world(self, *limits: str, **options: Any) -> tuple[Limiter, ManualClock]:
        clock = ManualClock(auto=True)
        return Limiter(*limits, store=self.make_store(clock), **options), clock

    # Granting.

    def test_a_call_denied_now_is_denied_until_its_wait_is_over_and_then_granted(
        self,
    ) -> None:
        """The promised wait is exact, whatever the algorithm."""
        for rate in RATES:
            limiter, clock = self._world(rate)
            while limiter.try_acquire():
                pass
            denied = _denied(limiter)
            clock.advance(us=denied.retry_after_us - 1)

            assert 1 == _denied(limiter).retry_after_us, rate

            clock.advance(us=1)

            assert limiter.try_acquire(), rate

    def test_a_refused_call_changes_no_limit(self) -> None:
        """All limits grant together or nothing is taken."""
        limiter, _ = self._world("10 requests/minute", "100 tokens/minute")
        limiter.try_acquire(tokens=90)
        before = limiter.status()
        for _ in range(50):
            assert not limiter.try_acquire(tokens=20)

        assert before == limiter.status()

    def test_no_more_than_the_limit_goes_in_any_window(self) -> None:
        """A caller that always waits as told is served at the limit's rate."""
        for rate in RATES[:1] + RATES[4:5]:
            limiter, clock = self._world(rate)
            times = []
            for _ in range(40):
                limiter.acquire()
                times.append(clock.now_us())
            gaps = [b - a for a, b in zip(times, times[6:], strict=False)]

            assert min(gaps) >= 60_000_000, rate

    def test_a_call_larger_than_a_limit_is_refused_at_once(self) -> None:
        """It would wait for ever."""
        limiter, clock = self._world("10 requests/minute", "100 tokens/minute")
        start = clock.now_us()
        error = _raised(NeverPossible, lambda: limiter.acquire(tokens=101))

        assert "100 tokens/minute" == error.limit
        assert start == clock.now_us()
        assert 0 == limiter.status()["10 requests/minute"].used

    def test_a_cost_that_is_no_whole_number_is_refused_and_changes_nothing(
        self,
    ) -> None:
        """Negative, fractional, boolean and NaN costs are mistakes of the caller."""
        limiter, _ = self._world("10 requests/minute", "100 tokens/minute")
        before = limiter.status()
        for wrong in (-1, 1.5, True, float("nan"), "7", None, 10**16):
            tokens: Any = wrong
            call = partial(limiter.acquire, tokens=tokens)
            _raised((TypeError, ConfigError), call)

        assert before == limiter.status()

    def test_keys_do_not_share_a_limit(self) -> None:
        """A key is whose limit it is."""
        limiter, _ = self._world("1 requests/minute")

        assert limiter.try_acquire(key="a")
        assert limiter.try_acquire(key="b")
        assert not limiter.try_acquire(key="a")

    def test_limiters_of_one_name_share_their_state(self) -> None:
        """And those without a name share nothing."""
        store = self.make_store(ManualClock())
        one = Limiter("1 requests/minute", store=store, name="n")
        two = Limiter("1 requests/minute", store=store, name="n")
        other = Limiter("1 requests/minute", store=store)
        one.acquire()

        assert not two.try_acquire()
        assert other.try_acquire()

    def test_the_limits_of_several_limiters_grant_together_or_not_at_all(self) -> None:
        """One call may be held by a team's limit and an account's."""
        store = self.make_store(ManualClock())
        team = Limiter("2 requests/minute", store=store)
        account = Limiter("1 requests/minute", store=store)
        account.acquire()

        denied = team.try_acquire(key="t", also=[(account, "")])

        assert isinstance(denied, Denied)
        assert "1 requests/minute" == denied.limit
        assert 0 == _only(team.status("t")).used

    def test_threads_together_get_exactly_the_limit(self) -> None:
        """Check and take are one step."""
        limiter, _ = self._world("50 requests/minute")
        granted: list[Grant] = []

        def call() -> None:
            for _ in range(50):
                answer = limiter.try_acquire()
                if isinstance(answer, Grant):
                    granted.append(answer)

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert 50 == len(granted)

    # Waiting.

    def test_a_call_waits_until_the_last_of_its_limits_lets_it_pass(self) -> None:
        """Not the first of them, and not a flat second."""
        limiter, clock = self._world(
            "60 requests/minute using leaky-bucket", "100 tokens/minute"
        )
        start = clock.now_us()
        limiter.acquire(tokens=100)
        grant = limiter.acquire(tokens=1)

        assert 60.0 == grant.waited_s
        assert 60_000_000 == clock.now_us() - start

    def test_a_timeout_that_cannot_be_met_fails_at_once_with_the_exact_wait(
        self,
    ) -> None:
        """Nobody waits in vain."""
        limiter, clock = self._world("1 requests/minute")
        limiter.acquire()
        clock.advance(20)
        start = clock.now_us()
        error = _raised(LimitExceeded, lambda: limiter.acquire(timeout=39))

        assert 40.0 == error.retry_after_s
        assert "1 requests/minute" == error.limit
        assert start == clock.now_us()

    def test_a_timeout_of_nought_grants_what_fits_and_refuses_what_does_not(
        self,
    ) -> None:
        """A deadline that has passed counts as one that passes now."""
        for timeout in (0, 0.0, -5):
            limiter, _ = self._world("1 requests/minute")

            assert limiter.acquire(timeout=timeout)

            _raised(LimitExceeded, partial(limiter.acquire, timeout=timeout))

    def test_a_timeout_that_is_just_met_is_met(self) -> None:
        """And so is one without bound."""
        for timeout in (60, 60.0, float("inf"), None):
            limiter, _ = self._world("1 requests/minute")
            limiter.acquire()

            assert 60.0 == limiter.acquire(timeout=timeout).waited_s

    # Settling.

    def test_what_was_not_used_goes_back_at_once(self) -> None:
        """A refund is usable by the next call."""
        limiter, _ = self._world("10 requests/minute", "100 tokens/minute")
        grant = limiter.acquire(tokens=100)
        grant.settle(tokens=30)

        assert 30 == limiter.status()["100 tokens/minute"].used
        assert limiter.try_acquire(tokens=70)

    def test_an_overrun_delays_later_calls(self) -> None:
        """It is charged now, as debt if need be."""
        limiter, _ = self._world("100 tokens/minute")
        limiter.acquire(tokens=50).settle(tokens=150)

        assert 150 == _only(limiter.status()).used
        assert 0 == _only(limiter.status()).remaining
        assert 120.0 == limiter.acquire(tokens=100).waited_s

    def test_a_grant_left_unsettled_counts_as_fully_used(self) -> None:
        """By an exception, too."""
        limiter, _ = self._world("100 tokens/minute")
        with limiter.acquire(tokens=20):
            pass
        _raised(ZeroDivisionError, lambda: _divide_by_zero(limiter))

        assert 40 == _only(limiter.status()).used

    def test_a_second_settle_changes_nothing(self) -> None:
        """Refunds are paid once."""
        limiter, _ = self._world("100 tokens/minute")
        grant = limiter.acquire(tokens=80)
        grant.settle(tokens=50)
        for again in (grant.release, grant.cancel, grant.settle):
            again()

        assert 50 == _only(limiter.status()).used
        assert not grant.is_open

    def test_a_cancelled_grant_leaves_no_trace(self) -> None:
        """The call was never sent."""
        for rate in RATES:
            limiter, _ = self._world(rate, "3 concurrent")
            before = limiter.status()
            grant = limiter.acquire()
            grant.cancel()

            assert before == limiter.status(), rate

    def test_a_refund_for_a_window_that_has_gone_changes_nothing(self) -> None:
        """It would forgive somebody else's use."""
        for rate in RATES:
            limiter, clock = self._world(rate)
            grant = limiter.acquire()
            clock.advance(24 * 3600)
            limiter.acquire()
            grant.cancel()

            assert 1 == _only(limiter.status()).used, rate

    def test_settling_refuses_what_is_no_count_and_stays_open(self) -> None:
        """A mistake in the amount must not lose the grant."""
        limiter, _ = self._world("100 tokens/minute", "2 concurrent")
        grant = limiter.acquire(tokens=80)
        for wrong in (-1, 1.5, True):
            tokens: Any = wrong
            _raised((TypeError, ConfigError), partial(grant.settle, tokens=tokens))
        _raised(TypeError, lambda: grant.settle(token=5))
        _raised(TypeError, lambda: grant.settle(concurrent=1))

        assert grant.is_open
        assert 80 == limiter.status()["100 tokens/minute"].used

    # Concurrency.

    def test_a_slot_is_free_again_when_its_grant_is_settled(self) -> None:
        """However it is settled."""
        for close in (Grant.settle, Grant.release, Grant.cancel, Grant.refused):
            limiter, clock = self._world("1 concurrent")
            grant = limiter.acquire()

            assert not limiter.try_acquire()

            close(grant)
            clock.advance(1)  # a refusal pauses for a second

            assert limiter.try_acquire(), close

    def test_a_slot_that_is_never_given_back_is_free_after_its_hold(self) -> None:
        """A holder that died does not keep it."""
        limiter, clock = self._world("1 concurrent")
        for hold, life_s in ((5, 5), (None, 15 * 60)):
            grant = limiter.acquire(hold=hold)
            clock.advance(life_s, us=-1)

            assert not limiter.try_acquire()

            clock.advance(us=1)
            taken = limiter.try_acquire()

            assert isinstance(taken, Grant)

            grant.release()  # it holds nothing any more

            assert not limiter.try_acquire()

            taken.release()

    def test_a_refusal_for_want_of_a_slot_says_that_its_wait_is_a_lower_bound(
        self,
    ) -> None:
        """A slot may be given back at any moment."""
        limiter, _ = self._world("1 concurrent")
        limiter.acquire()
        denied = _denied(limiter)

        assert not denied.exact
        assert "at least" in str(denied)

    # Money.

    def test_money_is_counted_exactly_in_its_own_currency(self) -> None:
        """Sums are decimals, never floats."""
        limiter, _ = self._world("$1/day")
        for _ in range(9):
            limiter.acquire(usd="0.1").settle(usd=Decimal("0.1"))
        limiter.acquire(usd="0.1").settle(usd="0.05")

        assert Decimal("0.95") == _only(limiter.status()).used
        assert not limiter.try_acquire(usd="0.050000001")
        assert limiter.try_acquire(usd="0.05")

    def test_a_spent_budget_is_an_error_of_its_own(self) -> None:
        """Nobody waits a day for money unless told to."""
        limiter, _ = self._world("$1/day")
        limiter.acquire(usd=1)
        error = _raised(BudgetExceeded, lambda: limiter.acquire(usd="0.01"))

        assert 86400.0 == error.retry_after_s
        assert 86400.0 == limiter.acquire(usd="0.01", timeout=100_000).waited_s

    # What providers say.

    def test_a_refusal_by_the_provider_pauses_the_limit_for_everyone(self) -> None:
        """A 429 must cost, and must pause."""
        limiter, _ = self._world("10 requests/minute", "100 tokens/minute")
        grant = limiter.acquire(tokens=10)
        grant.refused(retry_after_s=3.2)
        denied = limiter.try_acquire(tokens=1)

        assert isinstance(denied, Denied)
        assert 3.2 == denied.retry_after_s
        assert 1 == limiter.status()["10 requests/minute"].used
        assert 3.2 == limiter.acquire(tokens=1).waited_s
        assert limiter.try_acquire(tokens=1)

    def test_a_refusal_that_names_a_limit_pauses_that_one(self) -> None:
        """Calls that do not need it go on."""
        limiter, _ = self._world("10 requests/minute", "100 tokens/minute")
        limiter.acquire(tokens=10).refused(retry_after_s=5, unit="tokens")

        assert "100 tokens/minute" == _denied(limiter, tokens=1).limit

    def test_an_absurd_hint_is_ignored(self) -> None:
        """It pauses for a second, as no hint does."""
        for hint in (None, -1.0, float("nan"), float("inf"), 1e9):
            limiter, _ = self._world("10 requests/minute")
            limiter.acquire().refused(retry_after_s=hint)

            assert 1.0 == limiter.acquire().waited_s

    # Looking in, and changing live.

    def test_reading_the_status_changes_nothing(self) -> None:
        """The reset instant is the same however often it is asked for."""
        limiter, clock = self._world(*RATES[:1], "100 tokens/minute")
        limiter.acquire(tokens=7)
        resets = set()
        for _ in range(1000):
            status = limiter.status()
            reset_us = round(status["100 tokens/minute"].reset_after_s * 1e6)
            resets.add(clock.now_us() + reset_us)
            clock.advance(us=50_000)

        assert 1 == len(resets)
        assert 7 == limiter.status()["100 tokens/minute"].used

    def test_a_changed_amount_keeps_what_was_used(self) -> None:
        """Lowered or raised, it is in force at once."""
        limiter, _ = self._world("10 requests/minute")
        for _ in range(6):
            limiter.acquire()
        limiter.update("5 requests/minute")

        assert not limiter.try_acquire()
        assert 0 == _only(limiter.status()).remaining

        limiter.update("8 requests/minute")

        assert 2 == _only(limiter.status()).remaining

        _raised(ConfigError, lambda: limiter.update("8 requests/hour"))
        _raised(ConfigError, lambda: limiter.update("0 requests/minute"))

        assert 2 == _only(limiter.status()).remaining

    def test_a_clock_turned_back_locks_nobody_out_and_forward_gives_one_quota(
        self,
    ) -> None:
        """Time that runs backwards reads as no time passed."""
        for rate in RATES[:5]:
            limiter, clock = self._world(rate)
            while limiter.try_acquire():
                pass
            wait_us = _denied(limiter).retry_after_us
            clock.advance(-3600)

            assert wait_us == _denied(limiter).retry_after_us, rate

            clock.advance(us=wait_us)

            assert limiter.try_acquire(), rate

    # Learning.

    def test_what_an_answer_teaches_is_known_to_all_who_share_the_limit(self) -> None:
        """Limits nobody told are learned once, however many limiters there are."""
        store = self.make_store(ManualClock(auto=True))
        one, two = (
            Limiter("learned", store=store, name="n", account=_SHOWS) for _ in "ab"
        )
        first = one.acquire()

        assert not two.try_acquire()

        first.answered([Reading(unit="requests", limit=60, remaining=59)])
        first.settle()

        assert 1 == two.status()["60 requests/minute (learned)"].used
        assert two.try_acquire()

    def test_a_refusal_pauses_a_learned_limit_for_all_who_share_it(self) -> None:
        """Nobody else need be refused to know."""
        clock = ManualClock()
        store = self.make_store(clock)
        one, two = (
            Limiter("60 rpm", store=store, name="n", account=_SHOWS) for _ in "ab"
        )
        reading = Reading(unit="requests", limit=40, remaining=0)
        one.acquire().refused(3, readings=[reading])

        assert 39 == two.status()["60 requests/minute"].remaining
        assert _denied(two).retry_after_us >= 3_000_000

        clock.advance(3)

        assert two.try_acquire()

    def test_an_answer_teaches_once(self) -> None:
        """Whatever is told of it later: a second header changes nothing."""
        limiter, _ = self._world("60 rpm", account=_SHOWS)
        grant = limiter.acquire()
        for amount in (50, 40):
            grant.answered([Reading(unit="requests", limit=amount)])
        grant.settle()

        assert 49 == _only(limiter.status()).remaining


_SHOWS = Account(shows=(("requests", MINUTE),), cold=False)


def _denied(limiter: Limiter, tokens: int = 0) -> Denied:
    answer = limiter.try_acquire(tokens=tokens)
    assert isinstance(answer, Denied)
    return answer


def _only(status: dict[str, LimitStatus]) -> LimitStatus:
    (row,) = status.values()
    return row


def _divide_by_zero(limiter: Limiter) -> None:
    with limiter.acquire(tokens=20):
        raise ZeroDivisionError


def _raised(kinds: Any, call: Callable[[], object]) -> Any:
    """Call, and return the error it raises."""
    try:
        call()
    except kinds as error:
        return error
    raise AssertionError(kinds)
