"""What a limiter answers: a refusal for now or for ever, and the figures of `status()`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ratekeeper.core.units import (
    MINUTE,
    SECOND,
    decimal,
    format_money,
    format_wait,
    seconds,
)
from ratekeeper.errors import NeverPossible

if TYPE_CHECKING:
    from decimal import Decimal

    from ratekeeper.core.meter import Meter

BUSY_HINT = SECOND  # when to look again for what may be given back at any moment


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A call that does not fit now; false in a condition.

    `retry_after_us` is exact if no other call is admitted meanwhile. It is a lower bound
    (`exact` False) for a concurrency limit, and where the wait would be longer than a
    minute but for what calls under way hold and may give back (`is_held`).
    """

    retry_after_us: int
    limit: str
    exact: bool = True
    is_held: bool = False

    @property
    def retry_after_s(self) -> float:
        """The wait in seconds."""
        return seconds(self.retry_after_us)

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        bound = "" if self.exact else "at least "
        wait = format_wait(self.retry_after_us)
        return f"the limit '{self.limit}' is {self.why}: try again in {bound}{wait}"

    @property
    def why(self) -> str:
        """What has become of the limit, in words."""
        return "held by calls under way" if self.is_held else "used up"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LimitStatus:
    """One limit of one key: amounts in its unit (money in its currency).

    `missed` counts the calls that a limit which is only watched has let through.
    """

    limit: str
    used: int | Decimal
    remaining: int | Decimal
    reset_after_s: float
    waiting: int
    missed: int = 0


def denied(meter: Meter, wait_us: int, least_us: int) -> Denied:
    """Describe a refusal by one limit.

    `least_us` is the wait if calls under way gave back all that they may.
    """
    is_held = meter.is_exact and least_us < wait_us and wait_us > MINUTE
    if not meter.exact:
        wait_us = min(wait_us, BUSY_HINT)
    elif is_held:
        wait_us = max(least_us, BUSY_HINT)
    return Denied(
        retry_after_us=wait_us,
        limit=meter.text,
        exact=meter.exact and not is_held,
        is_held=is_held,
    )


def never_possible(meter: Meter, cost: int) -> NeverPossible:
    """Describe a call that no wait would let through."""
    much = format_money(cost) if meter.limit.is_money else cost
    return NeverPossible(
        f"the call takes {much} {meter.limit.unit}, more than the limit "
        f"'{meter.text}' ever holds: make it smaller or raise the limit",
        limit=meter.text,
    )


def status_of(meter: Meter, now: int) -> LimitStatus:
    """Describe a limit without changing it."""
    scale = decimal if meter.limit.is_money else int
    return LimitStatus(
        limit=meter.text,
        used=scale(meter.used(now)),
        remaining=scale(meter.remaining(now)),
        reset_after_s=seconds(meter.reset_us(now)),
        waiting=0 if meter.line is None else len(meter.line),
        missed=meter.missed,
    )
