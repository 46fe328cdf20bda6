"""Reading: one limit of an account, as the headers of an answer show it."""

from __future__ import annotations

from typing import NamedTuple


class Reading(NamedTuple):
    """One limit as an answer's headers show it; None where they do not say.

    `window_us` and `full_after_us`, until the limit is whole again, are microseconds.
    """

    unit: str
    window_us: int | None = None
    limit: int | None = None
    remaining: int | None = None
    full_after_us: int | None = None
