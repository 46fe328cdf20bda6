"""Naive accounts of each algorithm, kept as long as a test runs: nothing is clever here.

Each remembers every call and adds up; the meters of the core are checked against them.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction

from ratekeeper.core.limits import Limit


@dataclasses.dataclass
class Entry:
    """One call: when it was granted and what it holds after refunds."""

    at_us: int
    cost: int


class ExactLog:
    """A sliding log: a call of time t counts in [t, t + window)."""

    def __init__(self, amount: int, window_us: int) -> None:
        self.amount = amount
        self.window_us = window_us
        self.entries: list[Entry] = []

    def used(self, now: int) -> int:
        return sum(e.cost for e in self.entries if e.at_us + self.window_us > now)

    def fits(self, cost: int, now: int) -> bool:
        return cost == 0 or self.used(now) + cost <= self.amount

    def take(self, cost: int, now: int) -> Entry:
        entry = Entry(now, cost)
        self.entries.append(entry)
        return entry

    def ready_us(self, cost: int, now: int) -> int:
        """Return the first instant at which a cost fits if nothing else happens."""
        leaves = sorted(e.at_us + self.window_us for e in self.entries)
        return next(t for t in [now, *leaves] if t >= now and self.fits(cost, t))

    def worst(self) -> int:
        """Return the most that any window holds."""
        most = 0
        entries = sorted(self.entries, key=lambda e: e.at_us)
        held, first = 0, 0
        for entry in entries:
            held += entry.cost
            while entries[first].at_us + self.window_us <= entry.at_us:
                held -= entries[first].cost
                first += 1
            most = max(most, held)
        return most


class ExactBucket:
    """A bucket whose level is a fraction; below zero it is debt."""

    def __init__(self, burst: int, amount: int, window_us: int) -> None:
        self.burst = burst
        self.rate = Fraction(amount, window_us)
        self.level = Fraction(burst)
        self.at_us = 0

    def fill(self, now: int) -> None:
        self.level = min(
            Fraction(self.burst), self.level + (now - self.at_us) * self.rate
        )
        self.at_us = now

    def fits(self, cost: int, now: int) -> bool:
        self.fill(now)
        return cost == 0 or self.level >= min(cost, self.burst)

    def take(self, cost: int, now: int) -> None:
        self.fill(now)
        self.level -= cost


def limit_of(
    amount: int, window_us: int, using: str = "sliding-window", unit: str = "tokens"
) -> Limit:
    from ratekeeper.core.limits import Algorithm

    return Limit(
        amount=amount, unit=unit, window_us=window_us, algorithm=Algorithm(using)
    )
