"""Token bucket as GCRA on integers, and the leaky bucket, its burst-1 case.

The theoretical arrival time (tat) is kept in ticks of 1/q microseconds, where one unit
takes p/q microseconds to refill in lowest terms: every figure is an exact integer.
A bucket never fills past its capacity: a tat in the past reads as full.
Source: ITU-T I.371, generic cell rate algorithm (virtual scheduling).
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

from ratekeeper.core.limits import Algorithm
from ratekeeper.core.meter import NEVER, Meter
from ratekeeper.core.units import SECOND

if TYPE_CHECKING:
    from ratekeeper.core.limits import Limit


def second_of(limit: Limit) -> int:
    """Return one second's worth of a limit, at least 1."""
    return max(1, limit.amount * SECOND // limit.window_us)


class Bucket(Meter):
    """A bucket of `burst` units, refilled at the limit's rate.

    A cost above the burst is granted when the bucket is full; the rest is debt.
    `paced` makes the burst, where the limit says none, one second's worth.
    """

    __slots__ = ("_burst", "_busy_since_us", "_p", "_paced", "_q", "_slack", "_tat")

    def __init__(self, limit: Limit, *, paced: bool = False, guard_us: int = 0) -> None:
        super().__init__(limit, guard_us=guard_us)
        self._paced = paced
        self._tat = 0
        self._busy_since_us = 0
        self._configure()

    def _configure(self) -> None:
        limit = self.limit
        divisor = gcd(limit.window_us, limit.amount)
        self._burst = _capacity(limit, paced=self._paced)
        self._p = limit.window_us // divisor
        self._q = limit.amount // divisor
        # Calls sent at one rate arrive bunched by up to the guard: that much less burst.
        # Never less than one unit, and a call above what is left goes when the bucket
        # is full: a guard as long as the burst must not cost any of the rate.
        slack = self._burst * self._p - self.guard_us * self._q
        self._slack = max(slack, self._p)

    @property
    def burst(self) -> int:
        """How much goes at once, as far as the limit says."""
        return self._burst

    def hold(self, burst: int) -> None:
        """Let that much go at once: it has been seen to be let in."""
        if burst > self._burst:
            self._slack = burst * self._p
        else:
            self._configure()

    def wait_us(self, cost: int, now: int) -> int:
        """Return how long until `cost` fits; 0 means now."""
        need = cost * self._p
        if need > self._slack:
            if self.never(cost):
                return NEVER
            need = self._slack
        late = self._tat + need - self._slack - now * self._q
        if late <= 0 or cost == 0:
            return 0
        return -(-late // self._q)

    def take(self, cost: int, now: int) -> None:
        """Charge `cost` at `now`, as debt where it does not fit."""
        base = now * self._q
        if self._tat > base:
            self._tat += cost * self._p
        else:
            self._tat = base + cost * self._p
            self._busy_since_us = now
        if not self.owes:
            self._tat = min(self._tat, base + self._burst * self._p)

    admit = take  # charging what fits is no cheaper

    def back(
        self, cost: int, taken_us: int, now: int, counted_us: int | None = None
    ) -> None:
        """Give back part of what was taken, unless the bucket has been full since."""
        del now, counted_us
        if taken_us >= self._busy_since_us:
            self._tat -= cost * self._p

    def never(self, cost: int) -> bool:
        """Say whether `cost` is above both the burst and the limit."""
        return cost > self._burst and cost > self.limit.amount

    def backlog_us(self, ahead: int, cost: int, now: int) -> int:
        """Return the least time until `cost` fits once `ahead` has been served."""
        tat = self._tat
        if ahead:
            tat = max(tat, now * self._q) + ahead * self._p
        need = min(cost * self._p, self._slack)
        late = tat + need - self._slack - now * self._q
        return max(0, -(-late // self._q))

    def least_us(self, ahead: int, cost: int, back: int, now: int) -> int:
        """Return `backlog_us` if so much of what is used came back at once."""
        base = now * self._q
        tat = max(self._tat - back * self._p, base) + ahead * self._p
        late = tat + min(cost * self._p, self._slack) - self._slack - base
        return max(0, -(-late // self._q))

    def used(self, now: int) -> int:
        """Return what has not been refilled yet, rounded up."""
        return max(0, -(-(self._tat - now * self._q) // self._p))

    def remaining(self, now: int) -> int:
        """Return what a call could still take, never below 0."""
        return max(0, self._burst - self.used(now))

    def reset_us(self, now: int) -> int:
        """Return how long until the bucket is full."""
        return max(0, -(-(self._tat - now * self._q) // self._q))

    def is_binding(self, now: int) -> bool:
        """Say whether forgetting this bucket would forgive a key over its limit."""
        return super().is_binding(now) or self.remaining(now) == 0

    def change(self, limit: Limit, now: int) -> None:
        """Put a changed amount in force and keep what was used."""
        used = max(0, self._tat - now * self._q)  # ticks of a p-th of a unit
        paid_by = self._p
        super().change(limit, now)
        self._configure()
        self._tat = now * self._q - (-used * self._p // paid_by)

    def start_cold(self, now: int, pace: Meter) -> None:
        """Start with one second's worth: what an earlier process used is unknown."""
        del pace
        left = second_of(self.limit) * self._p
        self._tat = now * self._q + max(0, self._slack - left)  # past the guard as well
        self._busy_since_us = now
        self.cold_until_us = now + self.limit.window_us
        self.attention = True  # so that `charged` is kept until `confirm`

    def drain(self, until_us: int) -> None:
        """Leave no more than one unit at `until_us`, whatever is given back later."""
        drained = until_us * self._q + self._slack - self._p
        if self._tat < drained:
            self._tat = drained
            self._busy_since_us = until_us

    def _level(self, left: int, now: int) -> None:
        """Hold what the provider says is left."""
        self._tat = now * self._q + max(0, self._burst - left) * self._p


def _capacity(limit: Limit, *, paced: bool) -> int:
    """Return how much a bucket holds: the burst said, or what goes without saying."""
    if limit.algorithm is Algorithm.LEAKY_BUCKET:
        return 1
    if limit.burst is not None:
        return limit.burst
    return second_of(limit) if paced else limit.amount
