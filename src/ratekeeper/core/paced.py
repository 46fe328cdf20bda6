"""Paced: a token bucket and a window log together, for a provider nobody knows.

Evenly spaced at the limit's rate with a small burst, and still never more than the
limit in any window: refused by no model of enforcement. A cost above the burst goes
when the bucket is full.

Where it learns, one call at a time may go beyond what has been let in before: a probe.
Let in, it is what may go from then on; refused, it is not tried again for a long time.
So a bucket of a minute's worth is used as one after a minute or two, and one of a
second's worth refuses a single call.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ratekeeper.core.gcra import Bucket, second_of
from ratekeeper.core.meter import NEVER, Meter
from ratekeeper.core.window import SlidingWindow

if TYPE_CHECKING:
    from ratekeeper.core.limits import Limit

_FORGOTTEN = 60  # windows after which what was refused is tried again
_LOST = 2  # windows after which a probe nobody spoke of counts as none
_EVEN = 16  # of a window's worth goes at once where most of it is used
_PARTS = 8  # a burst that was refused loses one of these, and none grows to the last


class Paced(Meter):
    """A bucket of one second's worth (or the burst said) under a sliding window."""

    __slots__ = ("_bucket", "_burst", "_even", "_log", "_over", "_probe")

    def __init__(self, limit: Limit, *, guard_us: int = 0) -> None:
        super().__init__(limit, guard_us=guard_us)
        self._bucket = Bucket(limit, paced=True, guard_us=guard_us)
        self._log = SlidingWindow(limit, guard_us=guard_us)
        self._even = Bucket(_evenly(limit))
        self._burst = _Reach(self._bucket.burst)  # what the bucket may hold
        self._over = _Reach(0)  # what a window may hold above the limit
        self._probe: _Probe | None = None

    def wait_us(self, cost: int, now: int) -> int:
        """Return how long until `cost` fits; 0 means now."""
        wait = max(self._bucket.wait_us(cost, now), self._log.wait_us(cost, now))
        if self.learner is None:
            return wait
        even = self._even_us(0, cost, now)
        if not even and wait and self._may_probe(cost, now):
            return 0
        return max(wait, even)

    def _even_us(self, ahead: int, cost: int, now: int) -> int:
        """Return how long until a call leaves the rest of the window to others.

        A burst takes the first half alone; what is left is used evenly: else nobody
        could go at the window's end, minute for minute. Calls of many sizes need the
        burst to fill it at all. `ahead` goes first.
        """
        if self.unit != "requests" or self.limit.burst is not None:
            return 0
        beyond = self._log.used(now) + ahead + cost - self.limit.amount // 2
        if beyond <= 0:
            return 0
        even = self._even.backlog_us(ahead, cost, now)
        return even and min(even, self._log.freed_us(beyond, now))

    def take(self, cost: int, now: int) -> None:
        """Charge `cost` at `now`, as debt where it does not fit."""
        self._bucket.take(cost, now)
        self._even.take(cost, now)
        self._log.take(cost, now)

    def admit(self, cost: int, now: int) -> None:
        """Charge what `wait_us` has just said fits at this same instant."""
        if self.learner is not None and cost:
            self._note(cost, now)
            self.take(cost, now)  # a probe may be above what fits
            return
        self._bucket.take(cost, now)
        self._even.take(cost, now)
        self._log.admit(cost, now)

    def back(
        self, cost: int, taken_us: int, now: int, counted_us: int | None = None
    ) -> None:
        """Give back part of what was taken."""
        self._bucket.back(cost, taken_us, now)
        self._even.back(cost, taken_us, now)
        self._log.back(cost, taken_us, now, counted_us)

    def never(self, cost: int) -> bool:
        """Say whether `cost` is above the limit."""
        return cost > self.limit.amount

    def backlog_us(self, ahead: int, cost: int, now: int) -> int:
        """Return the least time until `cost` fits once `ahead` has been served."""
        wait = max(
            self._bucket.backlog_us(ahead, cost, now),
            self._log.backlog_us(ahead, cost, now),
        )
        if self.learner is None:
            return wait
        return max(wait, self._even_us(ahead, cost, now))

    @property
    def grain_us(self) -> int:
        """The width of a slot of its window."""
        return self._log.grain_us

    def least_us(self, ahead: int, cost: int, back: int, now: int) -> int:
        """Return `backlog_us` if so much of what is used came back at once."""
        return max(
            self._bucket.least_us(ahead, cost, back, now),
            self._log.least_us(ahead, cost, back, now),
        )

    def used(self, now: int) -> int:
        """Return what counts against the limit's window now."""
        return self._log.used(now)

    def owed(self, now: int) -> int:
        """Return what a bucket of this rate would not have refilled yet."""
        return self._bucket.used(now)

    def reset_us(self, now: int) -> int:
        """Return how long until the window is empty."""
        return self._log.reset_us(now)

    def is_binding(self, now: int) -> bool:
        """Say whether forgetting this would let a key go before its pace allows."""
        return super().is_binding(now) or self._bucket.is_binding(now)

    def change(self, limit: Limit, now: int) -> None:
        """Put a changed amount in force and keep what was used."""
        known, had = self._burst.known, self.limit.amount
        if known == self._bucket.burst:
            known = 0  # nothing has been learned
        elif limit.amount < had:
            known = known * limit.amount // had
        super().change(limit, now)
        self._bucket.change(limit, now)
        self._even.change(_evenly(limit), now)
        self._burst = _Reach(max(self._bucket.burst, known))
        self._over = _Reach(0)
        self._reach(now)

    def pause(self, until_us: int) -> None:
        """Refuse every call until then, and go on evenly: a burst was too much."""
        super().pause(until_us)
        self._bucket.drain(self.paused_until_us)

    def start_cold(self, now: int, pace: Meter) -> None:
        """Go evenly for a window, without probes: pacing is what a cold start is."""
        del pace
        self.cold_until_us = now + self.limit.window_us

    def _level(self, left: int, now: int) -> None:
        """Do nothing: less left than expected slows the pace down by itself."""

    def widen(self, guard_us: int, now: int) -> None:
        """Allow for a longer way to the provider."""
        super().widen(guard_us, now)
        self._log.widen(guard_us, now)

    def redate(self, cost: int, taken_us: int, counted_us: int, now: int) -> None:
        """Count a call from another instant on."""
        self._log.redate(cost, taken_us, counted_us, now)

    # Probes.

    def let_in(self, taken_us: int, now: int) -> None:
        """Take note that the provider let in what was taken then."""
        probe = self._probe
        if probe is not None and probe.taken_us == taken_us:
            self._probe = None
            self._burst.learn(probe.burst)
            self._over.learn(probe.over)
            self._reach(now)

    def turned_away(self, taken_us: int, now: int) -> bool:
        """Take note that it refused what was taken then; True if that was a probe."""
        probe = self._probe
        until_us = now + _FORGOTTEN * self.limit.window_us
        if probe is None or probe.taken_us != taken_us:
            return False
        self._probe = None
        if probe.over > self._over.known:
            self._over.shrink(0, until_us)
        else:
            self._burst.refuse(probe.burst, until_us)
            self._burst.shrink(self._less(probe.burst), until_us)
        self._reach(now)
        return True

    def shrink(self, now: int) -> bool:
        """Go more evenly: what had been let in before was refused.

        False where nothing is left to take back.
        """
        until_us = now + _FORGOTTEN * self.limit.window_us
        known, least = self._burst.known, self._bucket.burst
        over = self._over.known > 0 and self._beyond(0, now) > 0
        burst = known > least and 4 * self._bucket.used(now) >= 3 * known
        if over and not self._is_small():
            self._over.shrink(0, until_us)
        elif known > least:
            burst = True
        if burst:
            self._burst.shrink(self._less(known), until_us)
        self._reach(now)
        return over or burst

    def fullness(self, now: int) -> float:
        """Return how much of a window or of the burst is used, whichever is more."""
        burst = self._bucket.used(now) / self._burst.known
        return max(super().fullness(now), burst)

    def is_probing(self, taken_us: int) -> bool:
        """Say whether what was taken then reaches further than any call before it."""
        return self._probe is not None and self._probe.taken_us == taken_us

    def _is_small(self) -> bool:
        """Say whether the provider has been seen to hold a bucket, and no window."""
        return (
            self.learner is not None and self.learner.capacity < self.limit.amount // 2
        )

    def _less(self, burst: int) -> int:
        """Return what is surely less than a burst that was refused."""
        return max(self._bucket.burst, burst - max(1, burst // _PARTS))

    def _may_probe(self, cost: int, now: int) -> bool:
        """Say whether a call may go that reaches further than any before it."""
        probe = self._probe
        if probe is not None and now - probe.taken_us < _LOST * self.limit.window_us:
            return False
        if now < self.cold_until_us or self.limit.burst is not None:
            return False
        assert self.learner is not None  # only then is it asked
        if not self.learner.has_room(cost):
            return False
        burst = self._bucket.used(now) + cost
        over = self._beyond(cost, now)
        known = self._burst.known
        if not over:
            most = self.limit.amount * (_PARTS - 1) // _PARTS
            most = min(most, self.learner.capacity)
            return burst - cost <= known < burst <= most and self._burst.may(burst, now)
        # Calls of one size fill a window to its last unit.
        return (
            self.unit != "requests"
            and burst <= known
            and over - cost <= self._over.known
            and self._over.may(over, now)
        )

    def _note(self, cost: int, now: int) -> None:
        burst = self._bucket.used(now) + cost
        over = self._log.used(now) + cost - self.limit.amount
        if burst > self._burst.known or over > self._over.known:
            self._probe = _Probe(now, burst, max(0, over))

    def _beyond(self, cost: int, now: int) -> int:
        """Return by how much a call makes a window pass the limit."""
        return max(0, self._log.used(now) + cost - self.limit.amount)

    def _reach(self, now: int) -> None:
        """Put in force what has been learned."""
        self._bucket.hold(self._burst.known)
        amount = self.limit.amount + self._over.known
        if amount != self._log.limit.amount:
            self._log.change(dataclasses.replace(self.limit, amount=amount), now)


def _evenly(limit: Limit) -> Limit:
    """Return the pace that is kept where most of a window is used."""
    burst = max(second_of(limit), limit.amount // _EVEN)
    return dataclasses.replace(limit, burst=burst)


class _Probe:
    """A call on its way that reaches further than any before it."""

    __slots__ = ("burst", "over", "taken_us")

    def __init__(self, taken_us: int, burst: int, over: int) -> None:
        self.taken_us = taken_us
        self.burst = burst
        self.over = over


class _Reach:
    """How far calls may go: let in so far, and refused not long ago."""

    __slots__ = ("known", "refused", "until_us")

    def __init__(self, known: int) -> None:
        self.known = known
        self.refused = NEVER
        self.until_us = 0

    def may(self, reach: int, now: int) -> bool:
        """Say whether that far is not known to be too far."""
        if now >= self.until_us:
            self.refused = NEVER
        return reach < self.refused

    def learn(self, reach: int) -> None:
        """Take note that this far was let in."""
        self.known = max(self.known, reach)

    def refuse(self, reach: int, until_us: int) -> None:
        """Take note that this far was refused."""
        self.refused = min(self.refused, reach)
        self.until_us = until_us

    def shrink(self, known: int, until_us: int) -> None:
        """Take back what had been let in once."""
        self.refuse(known + 1, until_us)
        self.known = min(self.known, known)
