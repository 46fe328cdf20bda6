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

from ratekeeper.core.meter import Meter
from ratekeeper.core.units import DAY, SECOND

if TYPE_CHECKING:
    from ratekeeper.core.limits import Limit, Resets

SLOTS = 480  # a slot is 1/480 of the window: at most 0.21 % on the safe side
_NEVER = 1 << 62
_FEW = 4  # a key that made a call or two
_MANY = 512  # a power of two above SLOTS + 2, the most slots alive at once


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
        self._leaves_us = _NEVER  # nothing leaves the window before
        self._debt = 0  # taken, but still to come into the window
        self._room = limit.amount  # the limit less the debt

    def wait_us(self, cost: int, now: int) -> int:
        """Return how long until `cost` fits; 0 means now."""
        if now >= self._leaves_us:
            self._expire(now)
        over = self._total + cost - self._room
        if over <= 0 or cost == 0:
            return 0
        return self._freed_us(over, now)

    def take(self, cost: int, now: int) -> None:
        """Charge `cost` at `now`, as debt where it does not fit."""
        if now >= self._leaves_us:
            self._expire(now)
        room = self.limit.amount - self._total
        if cost > room:
            room = max(0, room)
            self._owe(cost - room)
            cost = room
        self.admit(cost, now)

    def admit(self, cost: int, now: int) -> None:
        """Charge what `wait_us` has just said fits at this same instant."""
        if now > self._closes_us:
            self._open(now)
        self._last_us = now
        self._total += cost

    def back(self, cost: int, taken_us: int, now: int) -> None:
        """Give back part of what was taken, unless it has left the window."""
        if now >= self._leaves_us:
            self._expire(now)
        if self._debt:  # the latest charge: it goes first
            paid = min(cost, self._debt)
            self._owe(-paid)
            cost -= paid
        if taken_us <= now - self._window:
            return
        newest = (self._head + self._size - 1) & self._mask
        if self._size and taken_us <= self._lasts[newest]:
            index = self._slot_of(taken_us)
            cost = min(cost, self._amounts[index])
            self._amounts[index] -= cost
            self._closed -= cost
        elif cost > self._total - self._closed:
            cost = self._total - self._closed
        self._total -= cost

    def never(self, cost: int) -> bool:
        """Say whether `cost` is above the limit."""
        return cost > self.limit.amount

    def backlog_us(self, ahead: int, cost: int, now: int) -> int:
        """Return the least time until `cost` fits once `ahead` has been served."""
        self._expire(now)
        amount = self.limit.amount
        windows = (ahead + cost - 1) // amount if ahead + cost else 0
        over = self._total + min(ahead + cost, amount) - self._room
        return max(self._freed_us(over, now), windows * self._window)

    def used(self, now: int) -> int:
        """Return what counts against the limit now."""
        self._expire(now)
        return self._total + self._debt

    def reset_us(self, now: int) -> int:
        """Return how long until the window is empty."""
        self._expire(now)
        return self._freed_us(self._total + self._debt, now)

    def change(self, limit: Limit, now: int) -> None:
        """Put a changed amount in force and keep what was used."""
        self._expire(now)
        debt, self._debt = self._debt, 0
        self.limit = limit
        self._room = limit.amount
        if debt:
            self.take(debt, now)

    def _owe(self, amount: int) -> None:
        self._debt += amount
        self._room -= amount

    def _freed_us(self, over: int, now: int) -> int:
        """Return when `over` units will have left the window and paid the debt."""
        if over <= 0 or self._total == 0:
            return 0
        # While there is debt, whatever leaves is at once taken by it and leaves again
        # one window later: whole rounds first, then the part of a round.
        rounds, rest = divmod(over - 1, self._total)
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
            if self._size:
                self._total -= self._amounts[self._head]
                self._closed -= self._amounts[self._head]
                self._head = (self._head + 1) & self._mask
                self._size -= 1
            else:
                self._total = 0
            paid = min(self._debt, self.limit.amount - self._total)
            if paid > 0:
                self._owe(-paid)
                self.admit(paid, left_us)
        self._size = 0  # what lies in the ring was given back
        self._closes_us = -1
        self._leaves_us = _NEVER

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
        """Go from a few slots to all of them at once: a key costs one of two sizes."""
        order = [(self._head + i) & self._mask for i in range(self._size)]
        spare = array("q", bytes(8 * (_MANY - self._size)))
        self._lasts = array("q", [self._lasts[i] for i in order]) + spare
        self._amounts = array("q", [self._amounts[i] for i in order]) + spare
        self._head = 0
        self._mask = _MANY - 1


class FixedWindow(Meter):
    """Never more than the limit between two resets; clock-aligned or by calendar."""

    __slots__ = ("_end_us", "_start_us", "_used")

    def __init__(self, limit: Limit, *, guard_us: int = 0) -> None:
        super().__init__(limit, guard_us=guard_us)
        self._start_us = 0
        self._end_us = 0
        self._used = 0

    def wait_us(self, cost: int, now: int) -> int:
        """Return how long until `cost` fits; 0 means now."""
        if now >= self._end_us:
            self._roll(now)
        over = self._used + cost - self.limit.amount
        if cost == 0 or (over <= 0 and now < self._end_us - self.guard_us):
            return 0
        return self._end_after_us(max(1, -(-over // self.limit.amount)), now)

    def take(self, cost: int, now: int) -> None:
        """Charge `cost` at `now`, as debt where it does not fit."""
        if now >= self._end_us:
            self._roll(now)
        self._used += cost

    def back(self, cost: int, taken_us: int, now: int) -> None:
        """Give back part of what was taken, unless its window has gone."""
        if now >= self._end_us:
            self._roll(now)
        if taken_us >= self._start_us:
            self._used = max(0, self._used - cost)

    def never(self, cost: int) -> bool:
        """Say whether `cost` is above the limit."""
        return cost > self.limit.amount

    def backlog_us(self, ahead: int, cost: int, now: int) -> int:
        """Return the least time until `cost` fits once `ahead` has been served."""
        if now >= self._end_us:
            self._roll(now)
        over = self._used + ahead + cost - self.limit.amount
        if over <= 0 and now < self._end_us - self.guard_us:
            return 0
        return self._end_after_us(max(1, -(-over // self.limit.amount)), now)

    def used(self, now: int) -> int:
        """Return what counts against the limit now."""
        if now >= self._end_us:
            self._roll(now)
        return self._used

    def reset_us(self, now: int) -> int:
        """Return how long until the window is empty, 0 if it is."""
        used = self.used(now)
        if used == 0:
            return 0
        return self._end_after_us(-(-used // self.limit.amount), now)

    def change(self, limit: Limit, now: int) -> None:
        """Put a changed amount in force and keep what was used."""
        if now >= self._end_us:
            self._roll(now)
        self.limit = limit

    def _roll(self, now: int) -> None:
        """Enter the window around `now`; each window gone by pays its share of debt."""
        if self._used:
            while self._end_us <= now and self._used:
                self._used = max(0, self._used - self.limit.amount)
                self._end_us = window_around(self.limit, self._end_us)[1]
        self._start_us, self._end_us = window_around(self.limit, now)

    def _end_after_us(self, windows: int, now: int) -> int:
        """Return how long until the end of the given number of windows."""
        end_us = self._end_us
        if self.limit.resets is None:
            return end_us + (windows - 1) * self.limit.window_us - now
        for _ in range(min(windows, _FAR) - 1):
            end_us = window_around(self.limit, end_us)[1]
        return end_us - now


_FAR = 1200  # calendar windows looked ahead: a hundred years of months


def window_around(limit: Limit, now: int) -> tuple[int, int]:
    """Return the start and end of the window that holds `now`, in epoch microseconds.

    Windows without a reset time are aligned to the epoch; calendar windows follow their
    zone's clock, so a day may have 23 or 25 hours.
    """
    if limit.resets is None:
        start = now - now % limit.window_us
        return start, start + limit.window_us
    daily = limit.window_us == DAY
    zone = ZoneInfo(limit.resets.zone)
    today = datetime.datetime.fromtimestamp(now // SECOND, zone).date()
    if not daily:
        today = today.replace(day=1)
    start = _instant(today, limit.resets, zone)
    if start > now:
        return _instant(_step(today, daily=daily, days=-1), limit.resets, zone), start
    return start, _instant(_step(today, daily=daily, days=1), limit.resets, zone)


def _step(day: datetime.date, *, daily: bool, days: int) -> datetime.date:
    """Go to the next or last day, or to the first of the next or last month."""
    if daily:
        return day + datetime.timedelta(days=days)
    return (day + datetime.timedelta(days=31 if days > 0 else -1)).replace(day=1)


def _instant(day: datetime.date, resets: Resets, zone: ZoneInfo) -> int:
    """Return the instant of a local time.

    One that occurs twice is the first; one that daylight saving skips is read with the
    offset in force before the gap.
    """
    hour, minute = divmod(resets.minute_of_day, 60)
    local = datetime.datetime.combine(day, datetime.time(hour, minute), zone)
    return int(local.timestamp()) * SECOND
