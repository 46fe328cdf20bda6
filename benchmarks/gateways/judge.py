"""What a limit allows, and what was let through, by a log as naive as can be.

It knows when calls came and nothing of any gateway; it shares no code with the engine.
Every call costs the same, so a limit is a number of calls in a window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

WINDOW_US = 60_000_000


def most(times_us: Iterable[int], window_us: int = WINDOW_US) -> int:
    """Return the most calls that lie in any window, its end not included."""
    log = sorted(times_us)
    return max(
        (sum(at <= other < at + window_us for other in log) for at in log), default=0
    )


def allowed(arrivals_us: Iterable[int], calls: int, wait_us: int) -> int:
    """Return how many calls can be let through: first come, as soon as there is room.

    One that would have to wait longer than `wait_us` is refused.
    """
    granted: list[int] = []
    for arrived in sorted(arrivals_us):
        free = granted[-calls] + WINDOW_US if len(granted) >= calls else arrived
        if max(free, arrived) <= arrived + wait_us:
            granted.append(max(free, arrived))
    return len(granted)
