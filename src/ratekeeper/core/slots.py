"""Concurrency as leases: a slot is held until it is given back or its hold runs out.

A lease is known by the instant it expires, so a holder that died frees its slot without
anyone looking for it. The cost of a call is its hold in microseconds.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left, insort
from typing import TYPE_CHECKING

from ratekeeper.core.learning import Mark
from ratekeeper.core.meter import Meter
from ratekeeper.core.units import MAX_AMOUNT, SECOND

if TYPE_CHECKING:
    from ratekeeper.core.limits import Limit

_LONGEST = 30 * SECOND  # that one call keeps the others waiting who know no limits
_FIRST = 4  # calls at once, where nothing is known


class Slots(Meter):
    """At most so many calls at once."""

    exact = False  # a slot may be given back at any moment

    __slots__ = ("_expiries",)

    def __init__(self, limit: Limit, *, guard_us: int = 0) -> None:
        super().__init__(limit, guard_us=guard_us)
        self._expiries: list[int] = []

    def wait_us(self, cost: int, now: int) -> int:
        """Return how long until the first lease runs out: a lower bound."""
        del cost
        if len(self._expiries) < self.limit.amount:
            return 0
        self._expire(now)
        over = len(self._expiries) - self.limit.amount
        return 0 if over < 0 else self._expiries[over] - now

    def take(self, cost: int, now: int) -> None:
        """Lease a slot for `cost` microseconds."""
        insort(self._expiries, now + cost)

    def back(
        self, cost: int, taken_us: int, now: int, counted_us: int | None = None
    ) -> None:
        """Give the slot back, if its lease has not run out."""
        del now, counted_us
        at = bisect_left(self._expiries, taken_us + cost)
        if at < len(self._expiries) and self._expiries[at] == taken_us + cost:
            del self._expiries[at]

    def renew(self, old_us: int, new_us: int) -> bool:
        """Move a lease that has not run out; say whether it was still held."""
        at = bisect_left(self._expiries, old_us)
        if at == len(self._expiries) or self._expiries[at] != old_us:
            return False
        del self._expiries[at]
        insort(self._expiries, new_us)
        return True

    def weight(self, cost: int) -> int:
        """Return 1: a call stands in line for one slot, however long it holds it."""
        del cost
        return 1

    def never(self, cost: int) -> bool:
        """Say no: a limit is at least one slot."""
        del cost
        return False

    def backlog_us(self, ahead: int, cost: int, now: int) -> int:
        """Return the wait if all leases run their course, those ahead as long as this.

        Slots come back earlier, and then the line moves on by itself.
        """
        self._expire(now)
        over = len(self._expiries) + ahead - self.limit.amount
        if over < 0:
            return 0
        rounds, at = divmod(over, self.limit.amount)
        leased = self._expiries[at] - now if at < len(self._expiries) else 0
        return leased + rounds * cost

    def used(self, now: int) -> int:
        """Return how many slots are held."""
        self._expire(now)
        return len(self._expiries)

    def reset_us(self, now: int) -> int:
        """Return how long until the last lease runs out."""
        self._expire(now)
        return self._expiries[-1] - now if self._expiries else 0

    def is_binding(self, now: int) -> bool:
        """Say whether a slot is held: forgetting it would let one more in."""
        return super().is_binding(now) or self.used(now) > 0

    def start_cold(self, now: int, pace: Meter) -> None:
        """Do nothing: slots of a process that ended are free."""

    def _expire(self, now: int) -> None:
        held = self._expiries
        if held and held[0] <= now:
            del held[: bisect_left(held, now + 1)]


class Gate(Slots):
    """One call at once, until it is known what the account's limits are."""

    is_known = False

    def take(self, cost: int, now: int) -> None:
        """Lease the slot for a while: an answer may never come."""
        super().take(min(cost, _LONGEST), now)

    def back(
        self, cost: int, taken_us: int, now: int, counted_us: int | None = None
    ) -> None:
        """Give the slot back."""
        super().back(min(cost, _LONGEST), taken_us, now, counted_us)

    def open(self, now: int) -> None:
        """Let everybody through: the limits behind it are known."""
        if self.limit.amount != MAX_AMOUNT:
            self.change(dataclasses.replace(self.limit, amount=MAX_AMOUNT), now)


class Adaptive(Slots):
    """As many calls at once as a provider lets in that never says how many.

    One more each time as many have been let in as there are; one refused, and it is a
    quarter less. Calls that were under way at a refusal say nothing new.
    """

    __slots__ = ("_let_in", "_refused_us")

    def __init__(self, limit: Limit, *, guard_us: int = 0) -> None:
        super().__init__(dataclasses.replace(limit, amount=_FIRST), guard_us=guard_us)
        self._let_in = 0
        self._refused_us = 0

    def mark(self, now: int) -> Mark:
        """Say that it learns."""
        amount = self.limit.amount
        return Mark(amount, self.charged, amount - self.used(now))

    def let_in(self, taken_us: int, now: int) -> None:
        """Take note that the provider let a call in."""
        del taken_us
        is_full = self.used(now) >= self.limit.amount
        self._let_in += is_full
        if self._let_in >= self.limit.amount:
            self._resize(self.limit.amount + 1, now)

    def turned_away(self, taken_us: int, now: int) -> bool:
        """Take note that it refused one."""
        if taken_us > self._refused_us:
            self._refused_us = now
            self._resize(max(1, self.limit.amount * 3 // 4), now)
        return True

    def _resize(self, amount: int, now: int) -> None:
        self._let_in = 0
        self.change(dataclasses.replace(self.limit, amount=amount), now)
