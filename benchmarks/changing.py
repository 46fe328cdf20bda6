"""Changing: a provider halves its limit in mid-run, and later gives four times that.

Nobody is told; the headers show it. Each minute is compared with what the oracle, which
knows, gets out of it. The minute of a change belongs to learning, the next does not.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from benchmarks import driver, pool
from benchmarks.arms import Ratekeeper, Told
from benchmarks.workload import MINUTE, MODELS, Case, Shows

if TYPE_CHECKING:
    from benchmarks.provider import Outcome
    from benchmarks.workload import Model

RPM, TOLD_RPM = 300, 600
CHANGES = ((5, 150), (12, 600))  # in which minute, and to how many requests a minute
BAR = 0.95
MODELS_MET = [m for m in MODELS if not m.jitter]
TOLD = (Told.NOTHING, Told.AMOUNTS)
SHOWS = (Shows.REMAINING, Shows.RESET)
ASKED = f"a changed limit: {BAR:.0%} of the oracle in the minute after the change's own"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One minute: what was used of what the oracle used, and the 429s."""

    share: float
    refused: int

    def __str__(self) -> str:
        return f"{self.share:.0%} ({self.refused})"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The minute of each change, and the one after it."""

    minutes: dict[int, Span]
    share: float  # of the whole run, minutes 2 to 20
    refused: int  # in the whole run

    def missed(self) -> list[int]:
        """Return the changes that were not followed within a minute."""
        return [at for at, _ in CHANGES if self.minutes[at + 1].share < BAR]


def measure(told: Told, shows: Shows, model: Model, minutes: int = 20) -> Row:
    """Run one arm through the changes."""
    case = Case(
        model=model,
        rpm=RPM,
        minutes=minutes,
        shows=shows,
        changes=tuple((minute * MINUTE, amount) for minute, amount in CHANGES),
    )
    make = functools.partial(
        Ratekeeper, told=told, rpm=TOLD_RPM if told is Told.AMOUNTS else None
    )
    outcome, best = driver.run(case, make), driver.best(case)
    since, until = case.since_us, case.until_us
    return Row(
        minutes={
            minute: _span(outcome, best, minute)
            for at, _ in CHANGES
            for minute in (at, at + 1)
        },
        share=outcome.answered(since, until) / best.answered(since, until),
        refused=outcome.refusals(0, until),
    )


def _span(outcome: Outcome, best: Outcome, minute: int) -> Span:
    since, until = minute * MINUTE, (minute + 1) * MINUTE
    return Span(
        share=outcome.answered(since, until) / best.answered(since, until),
        refused=outcome.refusals(since, until),
    )


def run() -> list[str]:
    """Measure, print, and return the bars that are missed."""
    found = pool.spread(
        measure,
        [
            (told, shows, model)
            for told in TOLD
            for shows in SHOWS
            for model in MODELS_MET
        ],
    )
    print(f"### A limit that changes: {RPM} rpm", end="")
    print(*(f"; from minute {at} on {amount}" for at, amount in CHANGES), sep="")
    print(
        "\nshare of the oracle (429s) in a minute; of minutes 2-20 and the whole run\n"
    )
    minutes = [minute for at, _ in CHANGES for minute in (at, at + 1)]
    print(f"| | | {' | '.join(f'minute {m}' for m in minutes)} | all |")
    print("|---" * (len(minutes) + 3) + "|")
    for (told, shows, model), row in found.items():
        who = told if told is Told.NOTHING else f"told {TOLD_RPM} rpm"
        cells = [str(row.minutes[m]) for m in minutes]
        cells.append(f"{row.share:.1%} ({row.refused})")
        print(f"| {who}; {shows} | {model.name} | {' | '.join(cells)} |")
    return [
        f"change in minute {at}, {told}, {shows}, {model.name}: {row.minutes[at + 1]}"
        for (told, shows, model), row in found.items()
        for at in row.missed()
    ]
