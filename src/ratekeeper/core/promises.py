"""Promises: when refused callers were told to come back, so that each finds a place.

Callers refused together would all be told the same moment, and all but one be refused
again. Each is told the first moment at which it would go if all those told before came
back as they were told, or a little later: a copy of the limit is charged in advance to
find it. Pure: every `now` is integer microseconds.
Invariant: where nobody else comes, whoever is late by no more than `_LATE_US` finds its
place, however late the others are by that.
"""

from __future__ import annotations

import copy
from collections import deque
from typing import TYPE_CHECKING

from ratekeeper.core.units import HOUR, SECOND

if TYPE_CHECKING:
    from ratekeeper.core.meter import Meter

_WINDOWS = (
    15  # that a promise may lie ahead: callers who poll must not push it for ever
)
_MOST = 10_000  # promises remembered of one limit
_LONGEST_US = HOUR  # windows of days: their callers will not all come at one moment
_LATE_US = SECOND // 4  # that callers come after the moment they were told
_STALE_US = SECOND  # after which what others took meanwhile is looked at again


class Promises:
    """Who was told to come back to one limit, and has not come yet."""

    __slots__ = ("_at_us", "_due", "_made_us", "_plan")

    def __init__(self) -> None:
        self._due: deque[tuple[int, int]] = deque()  # when, and what the call takes
        self._plan: Meter | None = None  # the limit, once all of them have come
        self._at_us = 0  # the last moment that was told
        self._made_us = 0

    def __bool__(self) -> bool:
        return bool(self._due)

    def expire(self, now: int) -> None:
        """Forget those whose moment has come: they are here, or will not be."""
        while self._due and self._due[0][0] <= now:
            self._due.popleft()

    def next_us(self, meter: Meter, cost: int, wait_us: int, now: int) -> int:
        """Return when a call refused now should come back; `wait_us` is its own wait."""
        self.expire(now)
        window_us = meter.limit.window_us
        if not meter.is_exact or window_us > _LONGEST_US or meter.never(cost):
            return wait_us
        plan = self._plan
        if plan is None or not self._due or now - self._made_us > _STALE_US:
            plan = self._draw(meter, now)
        at_us = max(self._at_us, now)
        later_us = max(wait_us, at_us + plan.delay_us(cost, at_us) - now)
        most_us = wait_us + _WINDOWS * window_us
        if later_us > most_us or len(self._due) >= _MOST:
            return min(later_us, most_us)
        self._promise(plan, cost, now + later_us)
        self._due.append((self._at_us, cost))
        return later_us

    def _draw(self, meter: Meter, now: int) -> Meter:
        """Copy the limit as it is, and charge it for those who are still to come."""
        plan = self._plan = _copied(meter)
        self._made_us = self._at_us = now
        for due_us, cost in self._due:
            self._promise(plan, cost, due_us)
        return plan

    def _promise(self, plan: Meter, cost: int, due_us: int) -> None:
        """Charge a call that is told `due_us`, as of when it may count at the latest.

        It has its place from `due_us` on all the same: what is charged counts whenever
        it is looked at.
        """
        self._at_us = max(self._at_us, due_us)
        plan.grant(cost, self._at_us + _LATE_US + plan.grain_us)


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
