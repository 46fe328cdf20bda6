"""Patience: how much of a call's time to keep for its answer while it stands in line.

Where more is asked for than a limit lets through, a line in order of arrival grows until
everyone in it has waited nearly as long as they can. Let go then, they are out of time
before they are answered: all of the quota is spent, and nobody gets anything. So a call
waits in line only as long as the time an answer takes is still left.

Pure arithmetic; the estimate is that of RFC 6298: a smoothed mean and four times its
smoothed deviation.
"""

from __future__ import annotations

_LEAST_MARGIN = 8  # an eighth: answers that all take the same time must not be late


class Patience:
    """Learns how long answers take; nothing is kept before the first one."""

    __slots__ = ("_deviation_us", "_mean_us")

    def __init__(self) -> None:
        self._mean_us: int | None = None
        self._deviation_us = 0

    def took(self, us: int) -> None:
        """Learn from an answer, or from one that was given up on: it takes longer."""
        if self._mean_us is None:
            self._mean_us, self._deviation_us = us, us // 2
            return
        error = us - self._mean_us
        self._deviation_us += (abs(error) - self._deviation_us) // 4
        self._mean_us += error // 8

    def in_line_us(self, left_us: int) -> int:
        """Return how much of what is left of a call's time it may wait in line.

        A quarter at least: slow answers to others keep nobody out who has little time.
        """
        return max(left_us - self._kept_us(), left_us // 4)

    def _kept_us(self) -> int:
        mean_us = self._mean_us or 0
        return mean_us + max(mean_us // _LEAST_MARGIN, 4 * self._deviation_us)
