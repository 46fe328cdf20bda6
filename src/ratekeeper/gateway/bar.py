"""Bars: a limit of the caller's own that would refuse whatever its next call asks.

Every call takes one request and one slot, so of the limit that refused a caller last the
head of its next call tells that it refuses again: no body needs to be read. Tokens,
money and models are told by bodies alone. Pure.
Invariant: what a bar refuses, the line would have refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekeeper.core import line
from ratekeeper.core.limits import CONCURRENT
from ratekeeper.core.policy import HOLD

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratekeeper.core.line import Waiter
    from ratekeeper.core.meter import Meter

_TAKES = {"requests": 1, CONCURRENT: HOLD}
_LAST = 1 << 62  # in the order of arrival


class Bar:
    """Where a caller was refused last, if its next call can be known to be as well."""

    __slots__ = ("cost", "meter")

    def __init__(self) -> None:
        self.meter: Meter | None = None
        self.cost = 0  # of any call

    def close(self, meter: Meter) -> None:
        """Take note of a limit of the caller's own that has refused a call."""
        self.cost = _TAKES.get(meter.unit, 0)
        self.meter = meter if self.cost else None

    def wait_us(
        self, left_us: int, now: int, waiter: Callable[[], Waiter], *, only_counts: bool
    ) -> int:
        """Return how long a call would wait that cannot be let in within `left_us`.

        0 where that is not sure, and the line has to say with the body read. What only
        counts tokens takes no request. `waiter` is asked where others are in line.
        """
        meter = self.meter
        assert meter is not None
        is_slot = meter.unit == CONCURRENT
        if (only_counts and not is_slot) or (is_slot and left_us):
            return 0
        wait_us = meter.delay_us(self.cost, now)
        if meter.line is None:
            if not wait_us:
                self.meter = None
        elif wait_us:  # else whoever is next in line is about to go
            last = waiter()
            last.costs = (self.cost,)
            last.arrive((meter,), now, _LAST)
            wait_us = line.wait_us(last, now)
            if last.rises_by(now + left_us, now):
                return 0
        return wait_us if wait_us > left_us else 0
