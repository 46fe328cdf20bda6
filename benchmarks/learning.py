"""What is learned of a provider that nobody described: all of it, run and judged."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from benchmarks import changing, kindness, sharing, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence


def run(rates: Sequence[int]) -> list[str]:
    """Measure everything, print the tables, and return the bars that are missed."""
    wrong: list[str] = []
    for measure, asked in (
        (functools.partial(unknown.run, rates), unknown.ASKED),
        (kindness.run, kindness.ASKED),
        (sharing.run, sharing.ASKED),
        (changing.run, changing.ASKED),
    ):
        found = measure()
        print(f"\nbars ({asked}): {'MISSED' if found else 'all cleared'}")
        print(*found, "", sep="\n", flush=True)
        wrong += found
    return wrong
