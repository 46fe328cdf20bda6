"""What a provider counts: five ways to hold a limit, from the provider's own side.

Written apart from `ratekeeper.core`, so that each checks the other: nothing here may be
borrowed from there. Time is an argument in integer microseconds, and every answer is
exact: refused at `ready_at - 1`, granted at `ready_at`, if nothing else arrives.
Time that goes backwards counts as standing still.
"""

from __future__ import annotations

import collections
from typing import Protocol

from ratekeeper.simulator.reset import Calendar, EveryPeriod

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US

Mark = list[int] | int | None
"""What a rule must remember of one call in order to settle it later."""


class Rule(Protocol):
    """One limit as its provider enforces it."""

    name: str  # the limit as a person writes it
    unit: str
    amount: int
    window_us: int
    refunds: bool  # whether unused cost comes back when a call is settled
    counts_refused: bool  # whether a call another rule refused still costs here

    @property
    def capacity(self) -> int:
        """The most one call can cost."""

    def ready_at(self, cost: int, now: int) -> int | None:
        """When a call of this cost is admitted if nothing else arrives; None: unknown.

        At or before `now` means now. A cost above `capacity` never is: None.
        """

    def take(self, cost: int, now: int) -> Mark:
        """Count a call that is admitted."""

    def charge(self, extra: int, now: int) -> None:
        """Count what was used beyond what was taken, whether it fits or not."""

    def give_back(self, mark: Mark, unused: int, now: int) -> None:
        """Uncount what was taken and not used."""

    def release(self, mark: Mark) -> None:
        """End a call: only a concurrency limit cares."""

    def change(self, amount: int, now: int) -> None:
        """Put another amount in force; what has been counted stays counted."""

    def used(self, now: int) -> int:
        """Tell how much counts now, rounded up."""

    def full_at(self, now: int) -> int:
        """When nothing counts any more, if nothing else arrives."""


class TokenBucket:
    """Holds `capacity`, fills by `amount` a window, continuously or by ticks.

    The level is kept in units of 1/window_us, so one microsecond adds exactly `amount`.
    It may go below zero: what a call used beyond its reservation is debt.
    """

    def __init__(
        self,
        amount: int,
        window_us: int = MINUTE_US,
        *,
        unit: str = "requests",
        capacity: int | None = None,
        tick_us: int = 1,
        refunds: bool = False,
        name: str = "",
    ) -> None:
        self.unit, self.amount, self.window_us = unit, amount, window_us
        self.refunds, self.counts_refused = refunds, False
        self.name = name or f"{amount} {unit}/{window_us} us token-bucket"
        self._tick_us = tick_us
        self._full = (amount if capacity is None else capacity) * window_us
        self._level = self._full
        self._filled_at: int | None = None  # full from the start, whenever that is

    @property
    def capacity(self) -> int:
        """The most one call can cost."""
        return self._full // self.window_us

    def _fill(self, now: int) -> int:
        """Add what has flowed in since; return the moment it is true for."""
        now -= now % self._tick_us
        if self._filled_at is None:
            self._filled_at = now
        elif now > self._filled_at:
            gained = (now - self._filled_at) * self.amount
            self._level = min(self._full, self._level + gained)
            self._filled_at = now
        return self._filled_at

    def _when(self, level: int, now: int) -> int:
        """When the bucket holds `level`."""
        at = self._fill(now)
        if self._level >= level:
            return now
        at += -(-(level - self._level) // self.amount)
        return at + -at % self._tick_us

    def ready_at(self, cost: int, now: int) -> int | None:
        """When a call of this cost is admitted if nothing else arrives."""
        need = cost * self.window_us
        return None if need > self._full else self._when(need, now)

    def take(self, cost: int, now: int) -> Mark:
        """Count a call that is admitted."""
        self.charge(cost, now)
        return None

    def charge(self, extra: int, now: int) -> None:
        """Count what was used beyond what was taken, as debt if need be."""
        self._fill(now)
        self._level -= extra * self.window_us

    def give_back(self, mark: Mark, unused: int, now: int) -> None:  # noqa: ARG002
        """Put back what was not used; the bucket never fills past its capacity."""
        self._fill(now)
        self._level = min(self._full, self._level + unused * self.window_us)

    def release(self, mark: Mark) -> None:
        """Nothing to free."""

    def change(self, amount: int, now: int) -> None:
        """Fill at another rate from now on; the capacity changes in proportion."""
        self._fill(now)
        capacity = self._full * amount // self.amount
        self._full = max(self.window_us, capacity)
        self._level = min(self._full, self._level)
        self.amount = amount

    def used(self, now: int) -> int:
        """Tell how much is missing from the bucket, rounded up."""
        self._fill(now)
        return -((self._level - self._full) // self.window_us)

    def full_at(self, now: int) -> int:
        """When the bucket is full again."""
        return self._when(self._full, now)


class QuantizedBucket(TokenBucket):
    """A limit per minute held per second: 60 rpm as a bucket of 1, one a second.

    The bucket holds what flows in during one `quantum_us`, and never less than one.
    """

    def __init__(
        self,
        amount: int,
        window_us: int = MINUTE_US,
        *,
        unit: str = "requests",
        quantum_us: int = SECOND_US,
        tick_us: int = 1,
        refunds: bool = False,
        name: str = "",
    ) -> None:
        super().__init__(
            amount,
            window_us,
            unit=unit,
            tick_us=tick_us,
            refunds=refunds,
            name=name or f"{amount} {unit}/{window_us} us quantized",
        )
        self._full = max(window_us, min(self._full, amount * quantum_us))
        self._level = self._full


class SlidingLog:
    """Remembers every call for one window: never more than `amount` in any of them.

    A call of time t counts in [t, t + window). Beyond `longest` entries the oldest two
    are merged at the later one's time: bounded, and on the strict side.
    """

    def __init__(
        self,
        amount: int,
        window_us: int = MINUTE_US,
        *,
        unit: str = "requests",
        refunds: bool = False,
        longest: int = 200_000,
        name: str = "",
    ) -> None:
        self.unit, self.amount, self.window_us = unit, amount, window_us
        self.refunds, self.counts_refused = refunds, False
        self.name = name or f"{amount} {unit}/{window_us} us sliding-log"
        self._longest = longest
        self._entries: collections.deque[list[int]] = collections.deque()
        self._sum = 0
        self._now = 0

    @property
    def capacity(self) -> int:
        """The most one call can cost."""
        return self.amount

    def _forget(self, now: int) -> int:
        """Drop what has left the window; return the moment it is true for."""
        self._now = now = max(now, self._now)
        entries = self._entries
        while entries and entries[0][0] + self.window_us <= now:
            self._sum -= entries.popleft()[1]
        return now

    def ready_at(self, cost: int, now: int) -> int | None:
        """When a call of this cost is admitted if nothing else arrives."""
        if cost > self.amount:
            return None
        self._forget(now)
        excess = self._sum + cost - self.amount
        if excess <= 0:
            return now
        for at, counted in self._entries:
            excess -= counted
            if excess <= 0:
                return at + self.window_us
        message = "the entries sum to less than the sum kept of them"
        raise AssertionError(message)

    def take(self, cost: int, now: int) -> Mark:
        """Count a call that is admitted."""
        now = self._forget(now)
        entry = [now, cost]
        if cost:
            self._entries.append(entry)
            self._sum += cost
            if len(self._entries) > self._longest:
                oldest = self._entries.popleft()
                self._entries[0][1] += oldest[1]
                oldest[1] = 0  # its refund, if one comes, finds nothing to give back
        return entry

    def charge(self, extra: int, now: int) -> None:
        """Count what was used beyond what was taken, from now on."""
        self.take(extra, now)

    def give_back(self, mark: Mark, unused: int, now: int) -> None:
        """Uncount what was not used, unless it has left the window."""
        now = self._forget(now)
        if isinstance(mark, list) and mark[0] + self.window_us > now:
            back = min(unused, mark[1])
            mark[1] -= back
            self._sum -= back

    def release(self, mark: Mark) -> None:
        """Nothing to free."""

    def change(self, amount: int, now: int) -> None:  # noqa: ARG002 - at once
        """Hold every window to another amount, the one that is open included."""
        self.amount = amount

    def used(self, now: int) -> int:
        """Tell how much counts in the window that ends now."""
        self._forget(now)
        return self._sum

    def full_at(self, now: int) -> int:
        """When the last entry leaves the window."""
        now = self._forget(now)
        for at, counted in reversed(self._entries):
            if counted:
                return at + self.window_us
        return now


class FixedWindow:
    """Counts up to `amount` in a window, then waits for the next one.

    Windows are aligned to the epoch, or follow a calendar: days that reset at a time of
    day in a time zone. What is settled after its window has gone changes nothing, and
    an overrun counts where it is learned.
    """

    def __init__(
        self,
        amount: int,
        window_us: int = MINUTE_US,
        *,
        unit: str = "requests",
        calendar: Calendar | None = None,
        refunds: bool = False,
        name: str = "",
    ) -> None:
        self.unit, self.amount, self.window_us = unit, amount, window_us
        self.refunds, self.counts_refused = refunds, False
        self.name = name or f"{amount} {unit}/{window_us} us fixed-window"
        self._calendar = calendar or EveryPeriod(window_us)
        self._start = self._end = 0
        self._sum = 0

    @property
    def capacity(self) -> int:
        """The most one call can cost."""
        return self.amount

    def _turn(self, now: int) -> int:
        """Open the window that holds now, never an earlier one."""
        if now >= self._end:
            self._start, self._end = self._calendar.window(now)
            self._sum = 0
        return max(now, self._start)

    def ready_at(self, cost: int, now: int) -> int | None:
        """When a call of this cost is admitted if nothing else arrives."""
        if cost > self.amount:
            return None
        self._turn(now)
        return now if self._sum + cost <= self.amount else self._end

    def take(self, cost: int, now: int) -> Mark:
        """Count a call that is admitted."""
        self._turn(now)
        self._sum += cost
        return self._start

    def charge(self, extra: int, now: int) -> None:
        """Count what was used beyond what was taken, in the window of now."""
        self.take(extra, now)

    def give_back(self, mark: Mark, unused: int, now: int) -> None:
        """Uncount what was not used, unless its window has gone."""
        self._turn(now)
        if mark == self._start:
            self._sum -= unused

    def release(self, mark: Mark) -> None:
        """Nothing to free."""

    def change(self, amount: int, now: int) -> None:  # noqa: ARG002 - at once
        """Hold every window to another amount, the one that is open included."""
        self.amount = amount

    def used(self, now: int) -> int:
        """Tell how much counts in the window of now."""
        self._turn(now)
        return self._sum

    def full_at(self, now: int) -> int:
        """When the next window starts, or now if this one is untouched."""
        now = self._turn(now)
        return self._end if self._sum else now


class Concurrency:
    """Calls in flight: a slot is taken at admission and freed when the call ends."""

    unit = "concurrent"
    window_us = 0
    refunds = False
    counts_refused = False

    def __init__(self, amount: int, *, name: str = "") -> None:
        self.amount = amount
        self.name = name or f"{amount} concurrent"
        self._open = 0

    @property
    def capacity(self) -> int:
        """The most one call can take."""
        return self.amount

    def ready_at(self, cost: int, now: int) -> int | None:
        """Now, or unknown: nobody can say when a call in flight will end."""
        return now if self._open + cost <= self.amount else None

    def take(self, cost: int, now: int) -> Mark:  # noqa: ARG002 - time plays no part
        """Take a slot."""
        self._open += cost
        return cost

    def charge(self, extra: int, now: int) -> None:
        """Nothing: a call in flight does not grow."""

    def give_back(self, mark: Mark, unused: int, now: int) -> None:
        """Nothing: a slot is freed whole, by `release`."""

    def release(self, mark: Mark) -> None:
        """Free the slot."""
        if isinstance(mark, int):
            self._open -= mark

    def change(self, amount: int, now: int) -> None:  # noqa: ARG002 - time plays no part
        """Allow another number of calls; those in flight stay."""
        self.amount = amount

    def used(self, now: int) -> int:  # noqa: ARG002 - time plays no part
        """Tell how many calls are in flight."""
        return self._open

    def full_at(self, now: int) -> int:
        """Unknown; now is a lower bound."""
        return now
