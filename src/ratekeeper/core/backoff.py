"""The retry schedule: full jitter, the provider's hint as the floor, a retry budget.

Pure arithmetic: randomness is an argument, time is integers.
Sources: the full-jitter schedule is AWS's ("Exponential Backoff And Jitter", 2015); the
retry budget follows the AWS SDKs' token bucket, throttling retries cheaper than others.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ratekeeper.core.units import SECOND
from ratekeeper.errors import ConfigError

if TYPE_CHECKING:
    import random

BUDGET = 500  # AWS SDK retry quota
COST = 14  # a retry after a fault
COST_THROTTLED = 5  # a retry the provider asked for
REFUND = 1  # each success fills the budget a little


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How often and how late to try again.

    `attempts` counts the first one; the jitter cap doubles from `base_us` to `cap_us`.
    """

    attempts: int = 3
    base_us: int = SECOND
    cap_us: int = 20 * SECOND

    def __post_init__(self) -> None:
        if self.attempts < 1:
            msg = f"attempts={self.attempts}: expected at least 1"
            raise ConfigError(msg)
        if not 0 <= self.base_us <= self.cap_us:
            msg = "expected 0 <= base <= cap for the back-off"
            raise ConfigError(msg)

    def wait_us(
        self, attempt: int, hint_us: int | None, draw: random.Random
    ) -> int | None:
        """Return the wait after failed attempt number `attempt` (1, 2, …).

        None after the last one. With a hint the wait is in [hint, hint + jitter cap];
        a hint of 0 leaves the back-off as the floor, so nothing ever loops hot.
        """
        if attempt >= self.attempts:
            return None
        ceiling = min(self.cap_us, self.base_us << min(attempt - 1, 40))
        jitter = draw.randint(0, ceiling)
        if hint_us:
            return hint_us + jitter
        return max(jitter, ceiling // 2) if hint_us == 0 else jitter


class RetryBudget:
    """Stops retries from multiplying an outage: they are paid for by successes."""

    __slots__ = ("left",)

    def __init__(self, left: int = BUDGET) -> None:
        self.left = left

    def spend(self, *, throttled: bool) -> bool:
        """Pay for one retry; False when the budget is spent."""
        price = COST_THROTTLED if throttled else COST
        if self.left < price:
            return False
        self.left -= price
        return True

    def succeeded(self) -> None:
        """Count a success."""
        self.left = min(BUDGET, self.left + REFUND)
