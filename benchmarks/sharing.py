"""Sharing: two programs that do not know of each other use one account.

Each has a limiter, a store and a full demand of its own; what they see of each other is
what the headers of their own answers show.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from benchmarks import driver, pool
from benchmarks.unknown import LEARNED, PACED, Arm
from benchmarks.workload import MODELS, SECOND, Case, Shows

if TYPE_CHECKING:
    from benchmarks.workload import Model

RPM = 300
WITHIN_S, SLOW_S = 2, 10  # any time up to this passes between the count and the answer
MOST_REFUSED, BAR = 0.01, 0.95
BARRED = ("tb60", "tb10")  # at answers within WITHIN_S
MODELS_MET = [m for m in MODELS if not m.jitter]
ARMS = [arm for arm in (*PACED, *LEARNED) if arm.shows is not Shows.NOTHING]
ASKED = (
    f"two programs at {', '.join(BARRED)}, answers within {WITHIN_S} s: at most "
    f"{MOST_REFUSED:.0%} refused, {BAR:.0%} of the oracle used"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the two got together."""

    share: float  # of the oracle, in minutes 2 to 20
    refused: float  # of all attempts of the run
    late: float  # of those in minutes 2 to 20
    first: float  # the first program's part of what was let in

    def __str__(self) -> str:
        parts = f"{self.first:.0%}:{1 - self.first:.0%}"
        return f"{self.share:.1%} · {self.refused:.2%} ({self.late:.2%}) · {parts}"

    @property
    def clears(self) -> bool:
        return self.refused <= MOST_REFUSED and self.share >= BAR


def measure(arm: Arm, model: Model, within_s: int, minutes: int = 20) -> Row:
    """Run two of an arm on one account."""
    case = Case(
        model=model,
        rpm=RPM,
        minutes=minutes,
        shows=arm.shows,
        answer_within_us=within_s * SECOND,
    )
    since, until = case.since_us, case.until_us
    pair = driver.run_together(case, [arm.make, arm.make])
    best = driver.best(case, programs=2).answered(since, until)
    used = [one.answered(since, until) for one in pair]
    late = sum(one.refusals(since, until) for one in pair)
    whole = sum(one.answered(0, until) for one in pair)
    refused = sum(one.refusals(0, until) for one in pair)
    return Row(
        share=sum(used) / best,
        refused=refused / (refused + whole),
        late=late / (late + sum(used)),
        first=used[0] / sum(used),
    )


def run() -> list[str]:
    """Measure, print, and return the bars that are missed."""
    jobs = [
        (arm, model, within_s)
        for within_s in (WITHIN_S, SLOW_S)
        for arm in ARMS
        for model in MODELS_MET
    ]
    found = pool.spread(measure, jobs)
    names = [model.name for model in MODELS_MET]
    print(f"### Two programs on one account, {RPM} rpm\n")
    print(
        "share of the oracle in minutes 2-20 · refused attempts of the whole run (of "
        "minutes 2-20) · whose the calls were\n"
    )
    print(f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|", sep="\n")
    for within_s in (WITHIN_S, SLOW_S):
        for arm in ARMS:
            cells = [str(found[arm, model, within_s]) for model in MODELS_MET]
            print(f"| {arm}; answers within {within_s} s | {' | '.join(cells)} |")
    return [
        f"sharing, {model.name}, {arm}: {row}"
        for (arm, model, within_s), row in found.items()
        if model.name in BARRED and within_s == WITHIN_S and not row.clears
    ]
