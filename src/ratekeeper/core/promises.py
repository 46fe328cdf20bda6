"""Promises: when refused callers were told to come back, so that each finds a place.

Callers refused together would all be told the same moment, and all but one be refused
again. Each is told the first moment at which it would go if all those told before came
back as they were told, or a little later: a copy of the limit is charged in advance to
find it. Of other flows it comes after those alone who would go before it in a line: the
same caller may have been told many moments, and they are its own flow's loss. Pure:
every `now` is integer microseconds.
Invariant: where nobody else comes and no flow is ahead of its share, whoever is late by
no more than `_LATE_US` finds its place, however late the others are by that.
"""

from __future__ import annotations

import copy
from bisect import bisect_left, bisect_right, insort
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from ratekeeper.core.order import SHARE
from ratekeeper.core.units import HOUR, SECOND

if TYPE_CHECKING:
    from ratekeeper.core.meter import Meter

_WINDOWS = (
    15  # that a promise may lie ahead: callers who poll must not push it for ever
)
_MOST = 10_000  # promises remembered of one limit
_PLANS = 8  # kept of one limit, for flows whose turns are far apart
_LONGEST_US = HOUR  # windows of days: their callers will not all come at one moment
_LATE_US = SECOND // 4  # that callers come after the moment they were told
_STALE_US = SECOND  # after which what others took meanwhile is looked at again


class _Promise(NamedTuple):
    """What its flow was promised before it, over weight; its moment; what it takes."""

    turn: int
    due_us: int
    cost: int


class Promises:
    """Who was told to come back to one limit, and has not come yet."""

    __slots__ = ("_due", "_ends", "_level", "_made", "_plans")

    def __init__(self) -> None:
        self._made: list[_Promise] = []  # by turn
        self._due: list[tuple[int, _Promise]] = []  # the same, a heap by moment
        self._plans: list[_Plan] = []  # the one used last is the last
        self._ends: dict[str, int] = {}  # the turn of each flow's next
        self._level = 0  # the turn a flow that joins starts from

    def __bool__(self) -> bool:
        return bool(self._made)

    def expire(self, now: int) -> None:
        """Forget those whose moment has come: they are here, or will not be."""
        while self._due and self._due[0][0] <= now:
            promise = heappop(self._due)[1]
            del self._made[bisect_left(self._made, promise)]
            self._level = max(self._level, promise.turn)

    def next_us(
        self,
        meter: Meter,
        cost: int,
        wait_us: int,
        now: int,
        *,
        flow: str = "",
        weight: int = 1,
    ) -> int:
        """Return when a call refused now should come back; `wait_us` is its own wait."""
        self.expire(now)
        window_us = meter.limit.window_us
        if not meter.is_exact or window_us > _LONGEST_US or meter.never(cost):
            return wait_us
        turn = max(self._level, self._ends.get(flow, 0))
        plan = self._plan(meter, turn, now)
        later_us = max(wait_us, plan.wait_us(cost, now))
        most_us = wait_us + _WINDOWS * window_us
        if later_us > most_us or len(self._made) >= _MOST:
            return min(later_us, most_us)
        self._make(_Promise(turn, now + later_us, cost))
        self._ends[flow] = turn + cost * SHARE // weight
        return later_us

    def _plan(self, meter: Meter, turn: int, now: int) -> _Plan:
        """Return the limit as it will be once all have come who go before this turn."""
        if not self._made:
            self._plans.clear()
        self._plans = [
            one for one in self._plans[-_PLANS:] if now - one.made_us <= _STALE_US
        ]
        usable = [one for one in self._plans if one.turn <= turn]
        if usable:
            plan = max(usable, key=lambda one: one.turn)
            self._plans.remove(plan)
        else:
            plan = _Plan(meter, now)
            self._ends = {f: end for f, end in self._ends.items() if end > self._level}
        self._plans.append(plan)
        first = bisect_right(self._made, plan.turn, key=_turn)
        last = bisect_right(self._made, turn, key=_turn)
        for promise in sorted(self._made[first:last], key=_due_us):
            plan.charge(promise)
        plan.turn = turn
        return plan

    def _make(self, promise: _Promise) -> None:
        """Remember a promise, and charge it wherever it goes before others."""
        insort(self._made, promise)
        heappush(self._due, (promise.due_us, promise))
        for plan in self._plans:
            if promise.turn <= plan.turn:
                plan.charge(promise)


def _turn(promise: _Promise) -> int:
    return promise.turn


def _due_us(promise: _Promise) -> int:
    return promise.due_us


class _Plan:
    """A copy of a limit, charged for all promises up to a turn."""

    __slots__ = ("_at_us", "_meter", "made_us", "turn")

    def __init__(self, meter: Meter, now: int) -> None:
        self._meter = _copied(meter)
        self._at_us = self.made_us = now  # the last moment that was told
        self.turn = -1

    def wait_us(self, cost: int, now: int) -> int:
        """Return when a call would go that goes after all of them."""
        at_us = max(self._at_us, now)
        return at_us + self._meter.delay_us(cost, at_us) - now

    def charge(self, promise: _Promise) -> None:
        """Charge a promise as of when it may count at the latest.

        It has its place from its moment on all the same: what is charged counts whenever
        it is looked at.
        """
        self._at_us = max(self._at_us, promise.due_us)
        late_us = _LATE_US + self._meter.grain_us
        self._meter.grant(promise.cost, self._at_us + late_us)


class _Scrap:
    """Where nothing is written down."""

    def note(self, amount: int, at_us: int) -> None:
        """Forget it."""


_SCRAP = _Scrap()


def _copied(meter: Meter) -> Meter:
    """Copy what a limit has counted, without its line, its teacher and its page."""
    kept = {id(meter.limit): meter.limit}
    left_out = [
        one for one in (meter.line, meter.learner, meter.page) if one is not None
    ]
    plan = copy.deepcopy(meter, {**kept, **{id(one): _SCRAP for one in left_out}})
    plan.line = plan.learner = None
    return plan
