"""The memory store against a naive exact log, by a stateful machine.

Time moves in whole seconds, further apart than a slot of the window is wide: there the
sliding window is exact, so the two must agree on every figure.
"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from ratekeeper import Denied, Grant, Limiter, MemoryStore, StoreUnavailable
from ratekeeper.core.line import State, Waiter
from ratekeeper.testing import ManualClock

TOKENS, SLOTS, FIXED = 100, 3, 7
MINUTE = 60_000_000
HOUR = 60 * MINUTE
LIMITS = (
    f"{TOKENS} tokens/minute",
    f"{FIXED} requests/hour using fixed-window",
    f"{SLOTS} concurrent",
)
KEYS = st.sampled_from("abcdef")
MAX_KEYS = 4


@dataclasses.dataclass
class Taken:
    """A call in the log, with what still counts of it."""

    at_us: int
    tokens: int
    window: int  # which hour it was taken in
    lease_ends_us: int


class NaiveLog:
    """Every call of one key, written down; everything else is summed up anew."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, int]] = []  # (since, tokens) in the window
        self.debt = 0
        self.requests: dict[int, int] = {}
        self.leases: list[int] = []
        self.now = 0

    def move_to(self, now: int) -> None:
        """Let entries leave at their instants, each paying the debt as it goes."""
        while self.entries and self.entries[0][0] + MINUTE <= now:
            left_us = self.entries[0][0] + MINUTE
            self.entries = [e for e in self.entries if e[0] + MINUTE > left_us]
            self.pay(left_us)
        self.leases = [end for end in self.leases if end > now]
        self.now = now

    def total(self) -> int:
        return sum(tokens for _, tokens in self.entries)

    def hour(self) -> int:
        return self.now // HOUR

    def fits(self, tokens: int) -> bool:
        in_hour = self.requests.get(self.hour(), 0)
        return (
            (tokens == 0 or self.total() + self.debt + tokens <= TOKENS)
            and in_hour + 1 <= FIXED
            and len(self.leases) < SLOTS
        )

    def take(self, tokens: int, hold_us: int) -> Taken:
        self.entries.append((self.now, tokens))
        self.requests[self.hour()] = self.requests.get(self.hour(), 0) + 1
        self.leases.append(self.now + hold_us)
        return Taken(self.now, tokens, self.hour(), self.now + hold_us)

    def charge(self, more: int) -> None:
        now = min(more, max(0, TOKENS - self.total()))
        self.entries.append((self.now, now))
        self.debt += more - now

    def give_back(self, taken: Taken, less: int) -> None:
        """Take out what was not used, unless it has left; the debt takes its room."""
        kept = []
        for at_us, tokens in self.entries:
            mine = min(less, tokens) if at_us == taken.at_us else 0
            less -= mine
            kept.append((at_us, tokens - mine))
        self.entries = kept
        self.pay(self.now)

    def pay(self, now: int) -> None:
        paid = min(self.debt, TOKENS - self.total())
        if paid > 0:
            self.debt -= paid
            self.entries.append((now, paid))

    def free(self, taken: Taken) -> None:
        if taken.lease_ends_us in self.leases:
            self.leases.remove(taken.lease_ends_us)

    def undo_request(self, taken: Taken) -> None:
        if taken.window == self.hour():
            self.requests[taken.window] -= 1

    def binds(self) -> bool:
        return (
            self.total() + self.debt >= TOKENS
            or self.requests.get(self.hour(), 0) >= FIXED
            or bool(self.leases)
        )


class Seat:
    """An owner who is always there."""

    def __init__(self) -> None:
        self.told = 0

    def wake(self, waiter: Waiter) -> bool:
        del waiter
        self.told += 1
        return True

    def is_gone(self) -> bool:
        return False


class StoreMachine(RuleBasedStateMachine):
    grants = Bundle("grants")

    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(clock=self.clock, max_keys=MAX_KEYS)
        self.limiter = Limiter(*LIMITS, store=self.store)
        self.logs: dict[str, NaiveLog] = {}
        self.waiters: list[tuple[str, int, Waiter]] = []

    def log(self, key: str) -> NaiveLog:
        log = self.logs.setdefault(key, NaiveLog())
        log.move_to(self.clock.now_us())
        return log

    def notice_forgotten(self, newcomer: str) -> None:
        """A key may be forgotten for another, unless it is at a limit or waits."""
        for key in set(self.logs) - set(self.limiter._scope.rows) - {newcomer}:
            log = self.log(key)

            assert not log.binds(), key
            assert all(key != waiting for waiting, _, _ in self.waiters)

            del self.logs[key]

    @rule(
        target=grants,
        key=KEYS,
        tokens=st.integers(0, TOKENS),
        hold_s=st.integers(1, 100),
    )
    def try_acquire(
        self, key: str, tokens: int, hold_s: int
    ) -> tuple[str, Grant, Taken] | None:
        known = key in self.logs
        log = self.log(key)
        in_line = any(key == waiting for waiting, _, _ in self.waiters)
        try:
            answer = self.limiter.try_acquire(key=key, tokens=tokens, hold=hold_s)
        except StoreUnavailable:
            assert not known
            del self.logs[key]
            assert MAX_KEYS == len(self.logs)
            assert all(
                self.log(other).binds() or any(other == w for w, _, _ in self.waiters)
                for other in list(self.logs)
            )
            return None
        self.notice_forgotten(key)
        self.match_waiters()
        if not in_line:
            assert log.fits(tokens) is isinstance(answer, Grant)
        if isinstance(answer, Denied):
            return None
        return key, answer, log.take(tokens, hold_s * 1_000_000)

    @rule(key=KEYS, tokens=st.integers(1, TOKENS), timeout_s=st.integers(1, 200))
    def stand_in_line(self, key: str, tokens: int, timeout_s: int) -> None:
        waiter = Waiter(
            [tokens, 1, 10_000_000], timeout_us=timeout_s * 1_000_000, seat=Seat()
        )
        known = key in self.logs
        try:
            self.store.enter(waiter, [(self.limiter._scope, key)])
        except StoreUnavailable:
            assert not known
            return
        self.log(key)
        self.notice_forgotten(key)
        self.waiters.append((key, tokens, waiter))
        self.match_waiters()

    @precondition(lambda self: self.waiters)
    @rule(at=st.integers(0, 50))
    def cancel_a_waiter(self, at: int) -> None:
        key, _, waiter = self.waiters.pop(at % len(self.waiters))
        self.store.leave(waiter)

        assert State.LEFT is waiter.state

        self.log(key)
        self.match_waiters()

    @rule(grant=consumes(grants), tokens=st.integers(0, 2 * TOKENS))
    def settle(self, grant: tuple[str, Grant, Taken] | None, tokens: int) -> None:
        if grant is None:
            return
        key, given, taken = grant
        given.settle(tokens=tokens)
        if self.held(key, given):
            log = self.log(key)
            if tokens > taken.tokens:
                log.charge(tokens - taken.tokens)
            else:
                log.give_back(taken, taken.tokens - tokens)
            log.free(taken)
        self.match_waiters()

    @rule(grant=consumes(grants))
    def release(self, grant: tuple[str, Grant, Taken] | None) -> None:
        if grant is None:
            return
        key, given, taken = grant
        given.release()
        if self.held(key, given):
            self.log(key).free(taken)
        self.match_waiters()

    @rule(grant=consumes(grants))
    def cancel(self, grant: tuple[str, Grant, Taken] | None) -> None:
        if grant is None:
            return
        key, given, taken = grant
        given.cancel()
        if self.held(key, given):
            log = self.log(key)
            log.give_back(taken, taken.tokens)
            log.undo_request(taken)
            log.free(taken)
        self.match_waiters()

    def held(self, key: str, grant: Grant) -> bool:
        """Say whether a grant's meters are still those of its key."""
        row = self.limiter._scope.rows.get(key)
        return row is not None and row[0] is grant._meters[0]

    @rule(seconds=st.integers(1, 90))
    def advance(self, seconds: int) -> None:
        """Second by second, with every waiter looking when its time has come."""
        for _ in range(seconds):
            self.clock.advance(1)
            for key, _, waiter in list(self.waiters):
                if waiter.wake_us <= self.clock.now_us():
                    self.log(key)
                    self.store.look_again(waiter)
                    self.match_waiters()

    def match_waiters(self) -> None:
        """Write down who was granted in line, and forget who was refused."""
        done = [row for row in self.waiters if row[2].state is not State.WAITING]
        self.waiters = [row for row in self.waiters if row not in done]
        done.sort(key=lambda row: row[2].seq)
        for key, tokens, waiter in done:
            if waiter.state is State.GRANTED:
                log = self.log(key)

                assert log.fits(tokens)

                log.take(tokens, 10_000_000)
            else:
                assert State.REFUSED is waiter.state

    @invariant()
    def the_figures_agree(self) -> None:
        for key in list(getattr(self, "logs", {})):
            log = self.log(key)
            tokens, requests, slots = self.limiter.status(key).values()

            assert log.total() + log.debt == tokens.used
            assert log.requests.get(log.hour(), 0) == requests.used
            assert len(log.leases) == slots.used

    @invariant()
    def those_who_wait_are_those_in_line(self) -> None:
        if hasattr(self, "waiters"):
            assert len(self.waiters) == self.store._waiting
            assert len(self.limiter._scope.rows) <= MAX_KEYS

    def teardown(self) -> None:
        for _, _, waiter in self.waiters:
            self.store.leave(waiter)

        assert 0 == self.store._waiting
        for row in self.limiter._scope.rows.values():
            assert all(meter.line is None for meter in row)


@pytest.mark.timeout(60)
class TestStoreMachine(StoreMachine.TestCase):  # type: ignore[misc,valid-type]
    settings = settings(
        max_examples=150,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
