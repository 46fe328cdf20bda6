"""A waiting room: drives the line as a store and its timers would, in virtual time."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING

from ratekeeper.core import line
from ratekeeper.core.line import State, Waiter
from ratekeeper.core.policy import rules_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratekeeper.core.limits import Limit
    from ratekeeper.core.meter import Meter

START = 1_800_000_000_000_000


def meters_of(*limits: Limit | str) -> list[Meter]:
    return [rule.meter(START) for rule in rules_of(limits)]


class Room:
    """Some meters, and the callers that come to them."""

    def __init__(self, *limits: Limit | str) -> None:
        self.meters = meters_of(*limits)
        self.now = START
        self.woken: dict[Waiter, int] = {}  # how often each was looked at again
        self.granted: list[Waiter] = []
        self.refused: list[Waiter] = []
        self._decided: set[Waiter] = set()
        self._seq = itertools.count()
        self._order = itertools.count()
        self._timers: list[tuple[int, int, Waiter]] = []

    def enter(self, waiter: Waiter, meters: Sequence[Meter] | None = None) -> Waiter:
        waiter.arrive(self.meters if meters is None else meters, self.now, self._next())
        self.tell(line.enter(waiter, self.now))
        return waiter

    def _next(self) -> int:
        return next(self._seq)

    def tell(self, changed: Sequence[Waiter]) -> None:
        # Told twice in one move, an owner looks once: what is said last is its fate.
        for waiter in reversed(dict.fromkeys(reversed(changed))):
            if waiter.state is State.WAITING:
                heapq.heappush(
                    self._timers, (waiter.wake_us, next(self._order), waiter)
                )
                continue
            assert [] == waiter.lacks
            assert waiter not in self._decided
            self._decided.add(waiter)
            if waiter.state is State.GRANTED:
                self.granted.append(waiter)
            elif waiter.state is State.REFUSED:
                self.refused.append(waiter)

    def run(self, until_us: int | None = None) -> None:
        """Let time pass, looking at each waiter when its wake time has come."""
        while self._timers and (until_us is None or self._timers[0][0] <= until_us):
            when, _, waiter = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            if waiter.state is not State.WAITING:
                continue
            self.woken[waiter] = self.woken.get(waiter, 0) + 1
            self.tell(line.look_again(waiter, self.now))
            if waiter.state is State.WAITING:
                assert waiter.wake_us > self.now
                self.tell([waiter])
        if until_us is not None:
            self.now = max(self.now, until_us)

    def withdraw(self, waiter: Waiter) -> None:
        self.tell(line.withdraw(waiter, self.now))

    def back(self, waiter: Waiter, *unused: int) -> None:
        """Settle a grant: refund, and let the line move on."""
        for meter, cost in zip(waiter.meters, unused, strict=True):
            meter.back(cost, waiter.granted_us, self.now)
        self.tell(line.advance(waiter.meters, self.now))

    def is_empty(self) -> bool:
        return all(meter.line is None for meter in self.meters)
