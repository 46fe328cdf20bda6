"""Circuit breaker: whether what has failed again and again is tried once more.

Closed, calls go; after some failures in a row it opens, and nothing goes until a while
has passed; then one probe at a time goes, and its answer closes or opens it again, for
longer each time. Pure: every `now` is integer microseconds.
"""

from __future__ import annotations

from ratekeeper.core.units import SECOND

FAILURES = 5  # in a row
_FIRST_US = 2 * SECOND
_LONGEST_US = 60 * SECOND
_PROBE_US = 60 * SECOND  # after which a probe without an answer is given up on
_LOOK_US = SECOND  # when to look again while a probe is out: it may answer any moment


class Breaker:
    """The failures of one account in a row, and until when it is left alone."""

    __slots__ = ("_failures", "_open_until_us", "_opened", "_probing_until_us")

    def __init__(self) -> None:
        self._failures = 0
        self._opened = 0  # times in a row
        self._open_until_us = 0
        self._probing_until_us = 0

    @property
    def is_closed(self) -> bool:
        """Whether calls go as ever."""
        return not self._opened

    def wait_us(self, now: int) -> int:
        """Return how long until a call may go; 0 means now.

        While a probe is out nobody knows: then it is when to look again.
        """
        if not self._opened:
            return 0
        probing_us = min(self._probing_until_us - now, _LOOK_US)
        return max(0, self._open_until_us - now, probing_us)

    def go(self, now: int) -> None:
        """Take note that a call goes: where it is open, that is the probe."""
        if self._opened:
            self._probing_until_us = now + _PROBE_US

    def succeeded(self) -> None:
        """Close it: an answer came."""
        self._failures = self._opened = 0
        self._open_until_us = self._probing_until_us = 0

    def failed(self, now: int) -> None:
        """Count a failure; enough of them, or a failed probe, open it."""
        self._failures += 1
        if self._opened or self._failures >= FAILURES:
            if now < self._open_until_us:  # a call that had gone before it opened
                return
            for_us = min(_LONGEST_US, _FIRST_US << min(self._opened, 5))
            self._opened += 1
            self._open_until_us = now + for_us
            self._probing_until_us = 0

    def given_up(self) -> None:
        """Take note that a call told nothing: its caller went away, or it was refused."""
        self._probing_until_us = 0
