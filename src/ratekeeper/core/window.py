"""Sliding, fixed and calendar windows.

The sliding window keeps a ring of slots and counts a slot until the last call in it has
left the window: exact for calls further apart than a slot is wide, on the safe side
below that, in bounded memory at any rate. Use above the limit (an overrun found at
settling) is debt that later windows pay, so the long run keeps the limit too.
"""

from __future__ import annotations

import datetime
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from ratekeeper.core.meter import NEVER, Meter
from ratekeeper.core.units import DAY, SECOND

if TYPE_CHECKING:
    from ratekeeper.core.limits import Limit

SLOTS = 480  # a slot is 1/480 of the window: at most 0.21 % on the safe side
_FEW = 4  # a key that made a call or two
_MANY = 512  # a power of two above SLOTS + 2, the most slots that calls open
_MOST = 1024  # and those that debt being paid has to itself while there is room


class SlidingWindow(Meter):
    """Never more than the limit in any window."""

    __slots__ = (
        "_amounts",
        "_closed",
        "_closes_us",
        "_debt",
        "_head",
        "_last_us",
        "_lasts",
        "_leaves_us",
        "_mask",
        "_room",
        "_size",
        "_total",
        "_width",
        "_window",
    )

    def __init__(self, limit: Limit, *, guard_us: int = 0) -> None:
        super().__init__(limit, guard_us=guard_us)
        # Calls sent a window apart may be counted up to the guard less than that apart.
        self._window = limit.window_us + guard_us
        self._width = self._window // SLOTS
        # The open slot is three figures: what it took is what `_total` has above
        # `_closed`. Closed ones lie in a ring: the last call in each, and its amount.
        self._last_us = 0
        self._closes_us = -1
        self._total = 0  # in the window now
        self._closed = 0  # of that, in the ring
        self._lasts = array("q", bytes(8 * _FEW))
        self._amounts = array("q", bytes(8 * _FEW))
        self._mask = _FEW - 1
        self._head = 0  # index of the oldest slot
        self._size = 0
        self._leaves_us = NEVER  # nothing leaves the window before
        self._debt = 0  # taken, but still to come into the window
        self._room = limit.amount  # the limit less the debt

    def wait_us(self, cost: int, now: int) -> int:
        """Return how long until `cost` fits; 0 means now."""
        if now >= self._leaves_us:
            self._expire(now)
        over = self._total + cost - self._room
        if over <= 0 or cost == 0:
            return 0
        if cost > self.limit.amount:
            return NEVER
        return self.freed_us(over, now)

    def take(self, cost: int, now: int) -> None:
        """Charge `cost` at `now`, as debt where it does not fit."""
        if now >= self._leaves_us:
            self._expire(now)
        room = self.limit.amount - self._total
        if cost > room and self.owes:
            room = max(0, room)
            self._owe(cost - room)
            cost = room
        if cost:
            SlidingWindow.admit(self, cost, now)

    def admit(self, cost: int, now: int) -> None:
        """Charge what `wait_us` has just said fits at this same instant."""
        if now > self._closes_us:
            self._open(now)
        self._last_us = now
        self._total += cost

    def back(
        self, cost: int, taken_us: int, now: int, counted_us: int | None = None
    ) -> None:
        """Give back part of what was taken, unless it has left the window."""
        if counted_us is not None:
            taken_us = counted_us - self.guard_us
        self._remove(cost, taken_us, now)
        if self._debt:
            self._pay(now)

    def redate(self, cost: int, taken_us: int, counted_us: int, now: int) -> None:
        """Count what was taken at `taken_us` as of another instant."""
        cost = self._remove(cost, taken_us, now)
        at_us = min(counted_us - self.guard_us, now)
        newest = (self._head + self._size - 1) & self._mask
        if self._size and at_us <= self._lasts[newest]:
            index = self._slot_of(at_us)
            self._amounts[index] += cost
            self._closed += cost
        elif cost:
            if at_us > self._closes_us:
                self._open(at_us)
            self._last_us = max(self._last_us, at_us)
        self._total += cost

    def _remove(self, cost: int, taken_us: int, now: int) -> int:
        """Take out what is still in the window; returns how much that was."""
        if now >= self._leaves_us:
            self._expire(now)
        if taken_us <= now - self._window:
            return 0
        newest = (self._head + self._size - 1) & self._mask
        if self._size and taken_us <= self._lasts[newest]:
            index = self._slot_of(taken_us)
            cost = min(cost, self._amounts[index])
            self._amounts[index] -= cost
            self._closed -= cost
        elif cost > self._total - self._closed:
            cost = self._total - self._closed
        self._total -= cost
        return cost

    def widen(self, guard_us: int, now: int) -> None:
        """Allow for a longer way to the provider, or a shorter one."""
        self._expire(now)
        super().widen(guard_us, now)
        self._window = self.limit.window_us + guard_us
        self._width = self._window // SLOTS
        if self._total:
            oldest_us = self._lasts[self._head] if self._size else self._last_us
            self._leaves_us = oldest_us + self._window

    @property
    def grain_us(self) -> int:
        """The width of a slot: what is taken counts as long as the last in its slot."""
        return self._width

    def never(self, cost: int) -> bool:
        """Say whether `cost` is above the limit."""
        return cost > self.limit.amount

    def backlog_us(self, ahead: int, cost: int, now: int) -> int:
        """Return the least time until `cost` fits once `ahead` has been served."""
        self._expire(now)
        return self.freed_us(self._total + ahead + cost - self._room, now)

    def used(self, now: int) -> int:
        """Return what counts against the limit now."""
        if now >= self._leaves_us or not self._total:
            self._expire(now)
        return self._total + self._debt

    def reset_us(self, now: int) -> int:
        """Return how long until the window is empty."""
        self._expire(now)
        return self.freed_us(self._total + self._debt, now)

    def change(self, limit: Limit, now: int) -> None:
        """Put a changed amount in force and keep what was used."""
        self._expire(now)
        super().change(limit, now)
        self._room = limit.amount - self._debt
        if self._debt:
            self._pay(now)

    def _owe(self, amount: int) -> None:
        self._debt += amount
        self._room -= amount

    def _pay(self, now: int) -> None:
        """Let as much of the debt into the window as there is room for."""
        paid = min(self._debt, self.limit.amount - self._total)
        if paid > 0:
            self._owe(-paid)
            SlidingWindow.admit(self, paid, now)  # no charge that an overlay counts

    def freed_us(self, over: int, now: int) -> int:
        """Return how long until `over` units have left the window for the last time.

        What leaves makes room for what is owed, or for the calls ahead, and that leaves
        one window later: a first round of what is in the window, in its order, and of
        what fits beside it now; then rounds of one limit each.
        """
        if over <= 0:
            return 0
        rounds, rest = 0, over - 1
        if rest >= self._total:
            rounds, rest = divmod(rest - self._total, self.limit.amount)
            rest += self._total - self.limit.amount
            rounds += 1
            if rest < 0:  # it goes in now
                return rounds * self._window
        last_us = self._last_us
        if rest < self._closed:
            index = self._head
            while rest >= self._amounts[index]:
                rest -= self._amounts[index]
                index = (index + 1) & self._mask
            last_us = self._lasts[index]
        return max(0, last_us + self._window * (rounds + 1) - now)

    def _expire(self, now: int) -> None:
        """Drop the slots that have left the window; what they free pays the debt."""
        while self._total:
            left_us = self._window
            left_us += self._lasts[self._head] if self._size else self._last_us
            if left_us > now:
                self._leaves_us = left_us
                return
            if self._debt >= self._total == self.limit.amount:
                left_us += self._skip(left_us, now)
            if self._size:
                self._total -= self._amounts[self._head]
                self._closed -= self._amounts[self._head]
                self._head = (self._head + 1) & self._mask
                self._size -= 1
            else:
                self._total = 0
            if self._debt:
                if self._size < _MANY:  # a slot of its own: its leaving is foretold
                    self._closes_us = -1
                self._pay(left_us)
        self._size = 0  # what lies in the ring was given back
        self._closes_us = -1
        self._leaves_us = NEVER

    def _skip(self, left_us: int, now: int) -> int:
        """Let whole rounds of debt go by at once, however far the clock has jumped."""
        rounds = min(self._debt // self._total, (now - left_us) // self._window)
        later_us = rounds * self._window
        self._owe(-rounds * self._total)
        self._last_us += later_us
        for i in range(self._size):
            self._lasts[(self._head + i) & self._mask] += later_us
        return later_us

    def _open(self, now: int) -> None:
        """Close the open slot into the ring, and begin another."""
        amount = self._total - self._closed
        if amount:
            if self._size > self._mask:
                self._grow()
            index = (self._head + self._size) & self._mask
            self._lasts[index] = self._last_us
            self._amounts[index] = amount
            self._size += 1
            self._closed += amount
        elif not self._size:
            self._leaves_us = now + self._window
        self._closes_us = now + self._width

    def _slot_of(self, taken_us: int) -> int:
        """Find the closed slot of a call: the first that ends at or after it."""
        end = self._head + self._size
        size = self._mask + 1
        if end > size:  # it goes on at the beginning of the ring
            index = bisect_left(self._lasts, taken_us, self._head, size)
            if index < size:
                return index
            return bisect_left(self._lasts, taken_us, 0, end - size)
        return bisect_left(self._lasts, taken_us, self._head, end)

    def _grow(self) -> None:
        """Go from a few slots to all of them at once: a key costs one of two sizes.

        The third is for one that pays debt all the time.
        """
        room = _MANY if self._size < _MANY else _MOST
        order = [(self._head + i) & self._mask for i in range(self._size)]
        spare = array("q", bytes(8 * (room - self._size)))
        self._lasts = array("q", [self._lasts[i] for i in order]) + spare
        self._amounts = array("q", [self._amounts[i] for i in order]) + spare
        self._head = 0
        self._mask = room - 1


class FixedWindow(Meter):
    """Never more than the limit between two resets; clock-aligned or by calendar.

    What is used above the limit is debt: each window that goes by pays one limit of it.
    What is sent within the guard of a window's end may be counted in the next one: it
    is charged to both.
    """

    __slots__ = ("_end_us", "_index", "_late", "_start_us", "_used")

    def __init__(self, limit: Limit, *, guard_us: int = 0) -> None:
        super().__init__(limit, guard_us=min(guard_us, limit.window_us))
        self._index = 0
        self._start_us = 0
        self._end_us = 0
        self._used = 0
        self._late = 0  # of that, what may be counted in the next window

    def wait_us(self, cost: int, now: int) -> int:
        """Return how long until `cost` fits; 0 means now."""
        if now >= self._end_us:
            self._roll(now)
        if self._used + cost <= self.limit.amount or cost == 0:
            return 0
        if cost > self.limit.amount:
            return NEVER
        return self._end_after_us(self._windows(cost), now)

    def take(self, cost: int, now: int) -> None:
        """Charge `cost` at `now`, as debt where it does not fit."""
        if now >= self._end_us:
            self._roll(now)
        self._used += cost
        if now >= self._end_us - self.guard_us:
            self._late += cost

    admit = take  # charging what fits is no cheaper

    def back(
        self, cost: int, taken_us: int, now: int, counted_us: int | None = None
    ) -> None:
        """Give back part of what was taken, unless its window has gone."""
        del counted_us
        if now >= self._end_us:
            self._roll(now)
        if taken_us >= self._start_us - self.guard_us:
            self._used = max(0, self._used - cost)
        if taken_us >= self._end_us - self.guard_us:
            self._late = max(0, self._late - cost)

    def never(self, cost: int) -> bool:
        """Say whether `cost` is above the limit."""
        return cost > self.limit.amount

    def backlog_us(self, ahead: int, cost: int, now: int) -> int:
        """Return the least time until `cost` fits once `ahead` has been served."""
        wait = self.wait_us(cost, now)
        over = self._used + ahead + cost - self.limit.amount
        if over <= 0:
            return wait
        return max(wait, self._end_after_us(-(-over // self.limit.amount), now))

    def used(self, now: int) -> int:
        """Return what counts against the limit now."""
        if now >= self._end_us:
            self._roll(now)
        return self._used

    def reset_us(self, now: int) -> int:
        """Return how long until the window is empty, 0 if it is."""
        if self.used(now) == 0:
            return 0
        return self._end_after_us(self._windows(self.limit.amount), now)

    def change(self, limit: Limit, now: int) -> None:
        """Put a changed amount in force and keep what was used."""
        if now >= self._end_us:
            self._roll(now)
        super().change(limit, now)

    def widen(self, guard_us: int, now: int) -> None:
        """Allow for a longer way to the provider, or a shorter one."""
        super().widen(min(guard_us, self.limit.window_us), now)

    def _windows(self, cost: int) -> int:
        """Return how many windows must end before `cost` fits: at least one."""
        over = max(self._used - self.limit.amount, self._late) + cost
        return max(1, -(-over // self.limit.amount))

    def _roll(self, now: int) -> None:
        """Enter the window around `now`; each window gone by pays its share of debt."""
        amount = self.limit.amount
        index = index_of(self.limit, now)
        gone = index - self._index
        over = self._used - amount if self.owes else 0
        left = max(over, self._late) - (gone - 1) * amount
        self._used = max(0, left)
        self._late = 0
        self._index = index
        self._start_us = start_of(self.limit, index)
        self._end_us = start_of(self.limit, index + 1)

    def _end_after_us(self, windows: int, now: int) -> int:
        """Return how long until the end of the given number of windows."""
        return start_of(self.limit, self._index + windows) - now


def index_of(limit: Limit, now: int) -> int:
    """Return the number of the window that holds `now`.

    Windows without a reset time are aligned to the epoch; calendar windows follow their
    zone's clock, so a day may have 23 or 25 hours.
    """
    if limit.resets is None:
        return now // limit.window_us
    zone = ZoneInfo(limit.resets.zone)
    today = datetime.datetime.fromtimestamp(now // SECOND, zone).date()
    index = today.toordinal()
    if limit.window_us != DAY:
        index = today.year * 12 + today.month - 1
    return index if start_of(limit, index) <= now else index - 1


def start_of(limit: Limit, index: int) -> int:
    """Return the instant at which a window starts, in epoch microseconds.

    A time of day that occurs twice is the first of the two; one that daylight saving
    skips is read with the offset in force before the gap.
    """
    resets = limit.resets
    if resets is None:
        return index * limit.window_us
    if limit.window_us == DAY:
        if index >= _LAST_DAY:
            return NEVER
        day = datetime.date.fromordinal(index)
    else:
        year, month = divmod(index, 12)
        if year > datetime.MAXYEAR:
            return NEVER
        day = datetime.date(year, month + 1, 1)
    hour, minute = divmod(resets.minute_of_day, 60)
    zone = ZoneInfo(resets.zone)
    local = datetime.datetime.combine(day, datetime.time(hour, minute), zone)
    return int(local.timestamp()) * SECOND


_LAST_DAY = datetime.date.max.toordinal()
