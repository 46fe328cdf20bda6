"""The limits of an account as the headers of one answer show them.

In the limit language as far as the headers go: what they do not say is left out, never
guessed. Pure.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ratekeeper.core import units
from ratekeeper.core.limits import Limit

if TYPE_CHECKING:
    from ratekeeper.core.reading import Reading
    from ratekeeper.providers.catalog import Provider
    from ratekeeper.providers.headers import HeaderSource

_WINDOWS = (units.SECOND, units.MINUTE, units.HOUR, units.DAY)

# Whose reset is, by its own documentation, the time until a bucket is full: only there
# it tells the window. A fixed window's would say nothing.
_TIME_TO_FULL = frozenset(["openai"])
_ROUNDED_US = 1500  # "17ms" may have been anything from 16 to 18


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShownLimit:
    """One limit of an account, and what is left of it.

    `limit` is a limit string, None where the headers do not say enough for one;
    everything else is None where they do not say it.
    """

    unit: str
    limit: str | None = None
    amount: int | None = None
    window_s: float | None = None
    remaining: int | None = None
    full_after_s: float | None = None


def shown(
    provider: Provider, headers: HeaderSource, now_us: int
) -> tuple[ShownLimit, ...]:
    """Return the limits that an answer's headers show."""
    return tuple(
        _shown(provider, reading) for reading in provider.readings(headers, now_us)
    )


def _shown(provider: Provider, reading: Reading) -> ShownLimit:
    window_us = reading.window_us
    if window_us is None and provider.name in _TIME_TO_FULL:
        window_us = window_of(reading)
    limit = None
    if reading.limit is not None and window_us is not None:
        limit = str(Limit(amount=reading.limit, unit=reading.unit, window_us=window_us))
    return ShownLimit(
        unit=reading.unit,
        limit=limit,
        amount=reading.limit,
        window_s=_seconds(window_us),
        remaining=reading.remaining,
        full_after_s=_seconds(reading.full_after_us),
    )


def window_of(reading: Reading) -> int | None:
    """Return the window in which a bucket refills as fast as the reading says.

    None where that fits no usual window, or more than one.
    """
    limit, full_after_us = reading.limit, reading.full_after_us
    if limit is None or reading.remaining is None or full_after_us is None:
        return None
    taken = limit - reading.remaining
    fit = [
        window_us
        for window_us in _WINDOWS
        if taken
        and abs(full_after_us * limit - taken * window_us) <= _ROUNDED_US * limit
    ]
    return fit[0] if len(fit) == 1 else None


def _seconds(us: int | None) -> float | None:
    return None if us is None else units.seconds(us)
