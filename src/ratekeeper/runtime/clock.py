"""Where time comes from: epoch microseconds that never run backwards.

The wall clock is read once, at import; from there the monotonic clock counts, so a
wall clock that is turned locks nobody out and gives nobody a second quota.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import threading

_ANCHOR_NS = time.time_ns() - time.monotonic_ns()


class Clock(Protocol):
    """A source of time, and the way a thread waits by it: on a lock that is held."""

    def now_us(self) -> int:
        """Return the time in epoch microseconds."""

    def wait(self, lock: threading.Lock, timeout_us: int) -> bool:
        """Wait until `lock` can be taken or the time has passed; True if taken."""

    def wake(self, lock: threading.Lock) -> None:
        """Release a lock, so that whoever waits for it goes on; twice is once."""


class MonotonicClock:
    """The real clock."""

    @staticmethod
    def now_us(_read=time.monotonic_ns, _anchor=_ANCHOR_NS) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001 - bound once, for speed
        """Return the time in epoch microseconds."""
        return (_read() + _anchor) // 1000  # type: ignore[no-any-return]

    @staticmethod
    def wait(lock: threading.Lock, timeout_us: int) -> bool:
        """Wait until `lock` can be taken or the time has passed; True if taken."""
        return lock.acquire(timeout=min(timeout_us / 1e6, _LONGEST_S))

    @staticmethod
    def wake(lock: threading.Lock) -> None:
        """Release a lock, so that whoever waits for it goes on; twice is once."""
        with contextlib.suppress(RuntimeError):  # told twice before it looked
            lock.release()


_LONGEST_S = 24 * 3600.0  # longer waits look again once a day


class Steady:
    """Any clock, made to never run backwards: a step back reads as no time passed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_us = clock.now_us()
        self._offset_us = 0
        self.wait = clock.wait
        self.wake = clock.wake

    def now_us(self) -> int:
        """Return the time in epoch microseconds; call it under the store's lock."""
        now = self._clock.now_us() + self._offset_us
        if now < self._last_us:
            self._offset_us += self._last_us - now
            now = self._last_us
        self._last_us = now
        return now
