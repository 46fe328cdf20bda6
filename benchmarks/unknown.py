"""The rows of a provider nobody described: told amounts alone, or nothing at all.

No arm here is told how the provider enforces, nor how long a call may be in flight. The
arm that knows both runs beside them, as what learning could come to.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from benchmarks import arms, driver, pool
from benchmarks.workload import MINUTE, Case, Shows, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.provider import Outcome
    from benchmarks.workload import Model, Setting
    from ratekeeper.testing import ManualClock

BAR_PACED, BAR_LEARNED = 0.98, 0.95  # of the oracle; of the arm that knows the model
MOST_REFUSALS = 3  # all while it learns
LEARNS_US = 6 * MINUTE
DRAWS = 4  # of calls with tokens
ASKED = (
    f"amounts alone: {BAR_PACED:.0%} of the oracle; learned: {BAR_LEARNED:.0%} of the "
    f"model known, from the first minute on; at most {MOST_REFUSALS} refusals in a run, "
    "none after six minutes"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Who waits, and what the provider's headers say to it."""

    make: Callable[[Case, ManualClock], arms.Ratekeeper]
    told: arms.Told
    shows: Shows = Shows.NOTHING

    def __str__(self) -> str:
        return f"{self.told}; {self.shows}"


KNOWN = Arm(make=arms.Ratekeeper, told=arms.Told.MODEL)
PACED = [Arm(make=arms.untold, told=arms.Told.AMOUNTS, shows=shows) for shows in Shows]
LEARNED = [
    Arm(make=arms.learned, told=arms.Told.NOTHING, shows=shows)
    for shows in (Shows.REMAINING, Shows.RESET)
]
ALL = (*PACED, *LEARNED)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One arm at one provider: shares of all its draws, refusals of the worst."""

    share: float  # of the oracle, in minutes 2 to 20
    of_known: float  # of the arm that knows the model, in minutes 1 to 20
    early: int
    late: int
    most: int

    def __str__(self) -> str:
        return f"{self.share:.1%} · {self.of_known:.1%} · {self.early}/{self.late}"

    def clears(self, arm: Arm) -> bool:
        """Say whether it is as good as is asked."""
        kind = self.late == 0 and self.most <= MOST_REFUSALS
        if arm.told is arms.Told.NOTHING:
            return kind and self.of_known >= BAR_LEARNED
        return kind and self.share >= BAR_PACED


def measure(
    setting: Setting, model: Model, met: Sequence[Arm] = ALL, draws: int = DRAWS
) -> dict[Arm, Row]:
    """Run arms at one provider, over draws of the calls, beside the one that knows."""
    cases = [
        Case(
            model=model,
            rpm=setting.rpm,
            tpm=setting.tpm,
            refunds=setting.refunds,
            seed=seed,
        )
        for seed in range(1, (1 if setting.tpm is None else draws) + 1)
    ]
    best = [driver.best(case) for case in cases]
    runs = {
        arm: [
            driver.run(dataclasses.replace(case, shows=arm.shows), arm.make)
            for case in cases
        ]
        for arm in (KNOWN, *met)
    }
    return {
        arm: _row(outcomes, runs[KNOWN], best, cases[0])
        for arm, outcomes in runs.items()
    }


def _row(
    outcomes: list[Outcome], known: list[Outcome], best: list[Outcome], case: Case
) -> Row:
    since, until = case.since_us, case.until_us

    def used(runs: list[Outcome], since_us: int) -> int:
        if case.tpm is None:
            return sum(run.answered(since_us, until) for run in runs)
        return sum(run.counted(since_us, until) for run in runs)

    return Row(
        share=used(outcomes, since) / used(best, since),
        of_known=used(outcomes, MINUTE) / used(known, MINUTE),
        early=max(run.refusals(0, LEARNS_US) for run in outcomes),
        late=max(run.refusals(LEARNS_US, until) for run in outcomes),
        most=max(run.refusals(0, until) for run in outcomes),
    )


def table(setting: Setting, rows: dict[str, dict[Arm, Row]]) -> str:
    """Return the Markdown table of one setting: an arm a line, a provider a column."""
    lines = [f"### {setting}, model unknown", "", f"| | {' | '.join(rows)} |"]
    lines.append("|---" * (len(rows) + 1) + "|")
    for arm in (KNOWN, *ALL):
        cells = [str(found[arm]) for found in rows.values()]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def run(rates: Sequence[int]) -> list[str]:
    """Measure, print, and return the bars that are missed."""
    settings = settings_of(rates)
    jobs = [(s, model) for s in settings for model in s.untold]
    jobs.sort(key=lambda job: -job[0].rpm)  # the long ones first
    found = pool.spread(measure, jobs)
    print(
        "\nshare of the oracle in minutes 2-20 · of the model known in minutes 1-20 · "
        "429s in minutes 0-6 / 6-20, of the worst run\n"
    )
    wrong = []
    for setting in settings:
        rows = {model.name: found[setting, model] for model in setting.untold}
        print(table(setting, rows), end="\n\n")
        wrong += [
            f"{setting}, {name}, {arm}: {row}"
            for name, arms_ in rows.items()
            for arm, row in arms_.items()
            if arm is not KNOWN and not row.clears(arm)
        ]
    return wrong
