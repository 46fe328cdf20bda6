"""Paced: a token bucket and a window log together, for a provider nobody knows.

Evenly spaced at the limit's rate with a small burst, and still never more than the
limit in any window: refused by no model of enforcement. A cost above the burst goes
when the bucket is full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekeeper.core.gcra import Bucket
from ratekeeper.core.meter import Meter
from ratekeeper.core.window import SlidingWindow

if TYPE_CHECKING:
    from ratekeeper.core.limits import Limit


class Paced(Meter):
    """A bucket of one second's worth (or the burst said) under a sliding window."""

    __slots__ = ("_bucket", "_log")

    def __init__(self, limit: Limit, *, guard_us: int = 0) -> None:
        super().__init__(limit, guard_us=guard_us)
        self._bucket = Bucket(limit, paced=True, guard_us=guard_us)
        self._log = SlidingWindow(limit, guard_us=guard_us)

    def wait_us(self, cost: int, now: int) -> int:
        """Return how long until `cost` fits; 0 means now."""
        wait = self._bucket.wait_us(cost, now)
        window = self._log.wait_us(cost, now)
        return max(window, wait)

    def take(self, cost: int, now: int) -> None:
        """Charge `cost` at `now`, as debt where it does not fit."""
        self._bucket.take(cost, now)
        self._log.take(cost, now)

    def admit(self, cost: int, now: int) -> None:
        """Charge what `wait_us` has just said fits at this same instant."""
        self._bucket.take(cost, now)
        self._log.admit(cost, now)

    def back(self, cost: int, taken_us: int, now: int) -> None:
        """Give back part of what was taken."""
        self._bucket.back(cost, taken_us, now)
        self._log.back(cost, taken_us, now)

    def never(self, cost: int) -> bool:
        """Say whether `cost` is above the limit."""
        return self._log.never(cost)

    def backlog_us(self, ahead: int, cost: int, now: int) -> int:
        """Return the least time until `cost` fits once `ahead` has been served."""
        return max(
            self._bucket.backlog_us(ahead, cost, now),
            self._log.backlog_us(ahead, cost, now),
        )

    def used(self, now: int) -> int:
        """Return what counts against the limit's window now."""
        return self._log.used(now)

    def reset_us(self, now: int) -> int:
        """Return how long until the window is empty."""
        return self._log.reset_us(now)

    def is_binding(self, now: int) -> bool:
        """Say whether forgetting this would let a key go before its pace allows."""
        return super().is_binding(now) or self._bucket.is_binding(now)

    def change(self, limit: Limit, now: int) -> None:
        """Put a changed amount in force and keep what was used."""
        super().change(limit, now)
        self._bucket.change(limit, now)
        self._log.change(limit, now)

    def pause(self, until_us: int) -> None:
        """Refuse every call until then, and go on evenly: a burst was too much."""
        super().pause(until_us)
        self._bucket.drain(self.paused_until_us)

    def start_cold(self, now: int, pace: Meter) -> None:
        """Do nothing: pacing is what a cold start is."""
