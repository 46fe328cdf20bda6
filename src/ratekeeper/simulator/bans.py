"""Ban: a provider's answer to a caller who does not stop.

Pure: `now` is an argument in integer microseconds. So many refusals within a minute
close the account for hours; while it is closed, refusals are not counted again.
"""

from __future__ import annotations

import collections

from ratekeeper.errors import ConfigError
from ratekeeper.simulator.rules import MINUTE_US

_MOST_REFUSALS = 100_000  # the largest number that can be asked for


class Bans:
    """Counts refusals of one account; `after` None never bans."""

    def __init__(self, after: int | None, for_us: int) -> None:
        if after is not None and not 1 <= after <= _MOST_REFUSALS:
            message = f"ban after {after} refusals: expected 1 to {_MOST_REFUSALS}"
            raise ConfigError(message)
        if for_us <= 0:
            message = "a ban must last: expected more than 0 hours"
            raise ConfigError(message)
        self._after = after
        self._for_us = for_us
        self._until = 0
        self._refusals: collections.deque[int] = collections.deque(maxlen=after)

    def wait_us(self, now: int) -> int:
        """Tell how long the ban lasts still; 0 where there is none."""
        return max(0, self._until - now)

    def refused(self, now: int) -> bool:
        """Count a refusal; returns whether it brings the ban."""
        if self._after is None or self.wait_us(now):
            return False
        self._refusals.append(now)
        full = len(self._refusals) == self._after
        if not full or self._refusals[0] + MINUTE_US <= now:
            return False
        self._refusals.clear()
        self._until = now + self._for_us
        return True
