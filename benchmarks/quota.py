"""`make bench-quota`: how much of a provider's quota each way of waiting gets out of it.

Every arm meets the same calls at the same enforcer, on a virtual clock, beside a
clairvoyant first-come oracle. Prints a table a rate, and checks the bars for the arm
that knows the provider's model: 0 refusals, and its share of the oracle.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from typing import Any

from benchmarks import driver, learning, peers, pool
from benchmarks.arms import BareSDK, Ratekeeper, paced
from benchmarks.provider import Outcome
from benchmarks.workload import Case, Model, Setting, settings_of

RATES = (60, 300, 3_000)
DRAWS = 4  # of calls with tokens: their sizes matter. Every figure is a run's mean
BUSY_RPM, SHORT_MINUTES = 3_000, 5  # where peers run for less than twenty minutes
BAR, BAR_HARD = 0.995, 0.98  # the second under jitter, and for tokens
OURS: dict[str, Any] = {"known": Ratekeeper, "paced": paced, "bare": BareSDK}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One arm at one provider: the mean of its runs."""

    arm: str
    answered: float
    share: float
    early: float
    late: float
    vain: float
    short: bool = False  # it ran for fewer minutes

    @property
    def refusals(self) -> float:
        return self.early + self.late

    def __str__(self) -> str:
        mark = "†" if self.short else ""
        counts = f"{self.early:.0f}/{self.late:.0f}"
        return (
            f"{self.answered:.0f}{mark} · {self.share:.1%} · {counts} · {_k(self.vain)}"
        )


def _k(tokens: float) -> str:
    return f"{tokens / 1000:.0f}k" if tokens else "0"


def bar_of(setting: Setting, model: Model) -> float:
    """Return the share of the oracle that is asked of the arm that knows the model."""
    return BAR_HARD if model.jitter or setting.tpm else BAR


def measure(setting: Setting, model: Model, name: str) -> Row:
    """Run one arm, and the oracle beside it, over its draws of the calls."""
    peer = next((p for p in peers.ALL if p.package == name), None)
    short = peer is not None and setting.rpm >= BUSY_RPM and setting.tpm is None
    single = setting.tpm is None or (peer is not None and peer.slow)
    draws = 1 if single else DRAWS
    cases = [
        Case(
            model=model,
            rpm=setting.rpm,
            tpm=setting.tpm,
            refunds=setting.refunds,
            minutes=SHORT_MINUTES if short else 20,
            seed=seed,
        )
        for seed in range(1, draws + 1)
    ]
    outcomes = [driver.run(case, peer or OURS[name]) for case in cases]
    yardsticks = [driver.best(case) for case in cases]
    used = Outcome.answered if setting.tpm is None else Outcome.counted
    since, until = cases[0].since_us, cases[0].until_us
    return Row(
        arm=outcomes[0].arm,
        answered=sum(x.answered(since, until) for x in outcomes) / draws,
        share=sum(used(x, since, until) for x in outcomes)
        / sum(used(best, since, until) for best in yardsticks),
        early=sum(x.refusals(0, since) for x in outcomes) / draws,
        late=sum(x.refusals(since, until) for x in outcomes) / draws,
        vain=sum(x.vain for x in outcomes) / draws,
        short=short,
    )


Results = dict[tuple[Setting, str, str], Row]


def measure_all(settings: list[Setting], names: list[str]) -> Results:
    """Measure every arm at every provider."""
    jobs = [
        (setting, model, name)
        for setting in sorted(settings, key=lambda s: s.tpm is not None)
        for name in names
        for model in setting.models
    ]
    jobs.sort(key=lambda job: -job[0].rpm)  # the long ones first
    found = pool.spread(measure, jobs)
    return {(job[0], job[1].name, job[2]): row for job, row in found.items()}


def table(setting: Setting, names: list[str], rows: Results) -> str:
    """Return the Markdown table of one setting: an arm a line, a provider a column."""
    models = [model.name for model in setting.models]
    lines = [f"### {setting}", "", f"| | {' | '.join(models)} |"]
    lines.append("|---" * (len(models) + 1) + "|")
    for name in names:
        cells = [rows[setting, model, name] for model in models]
        lines.append(f"| {cells[0].arm} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def missed(settings: list[Setting], rows: Results) -> list[str]:
    """List the bars that the arm with the known model does not clear."""
    found = []
    for setting in settings:
        for model in setting.models:
            row, bar = rows[setting, model.name, "known"], bar_of(setting, model)
            if row.refusals or row.share < bar:
                found.append(f"{setting}, {model.name}: {row}, asked: 0/0, {bar:.1%}")
    return found


def known(*, quick: bool) -> list[str]:
    """Measure Ratekeeper and the peers, print, and return the bars that are missed."""
    found, missing = ([], []) if quick else peers.present()
    names = [*OURS, *(peer.package for peer in found)]
    settings = settings_of(RATES[:1] if quick else RATES)
    rows = measure_all(settings, names)
    print(
        "\nanswered · share of the oracle · 429s in minutes 0-2 / 2-20 · tokens sent in "
        f"vain; the mean of a run.\n† minutes 2-{SHORT_MINUTES} alone.\n"
    )
    for setting in settings:
        print(table(setting, names, rows), end="\n\n")
    print(*peers.versions(found), *missing, sep="\n")
    wrong = missed(settings, rows)
    asked = f"0 refusals, {BAR:.1%} of the oracle ({BAR_HARD:.0%}: jitter, tokens)"
    print(f"bars ({asked}): {'MISSED' if wrong else 'all cleared'}", *wrong, sep="\n")
    return wrong


def main() -> int:
    """Measure, print, and return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="bench-quota", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="60 rpm and no peers")
    parser.add_argument(
        "--unknown", action="store_true", help="only what is learned, untold"
    )
    args = parser.parse_args()
    began = time.perf_counter()
    wrong = [] if args.unknown else known(quick=args.quick)
    if args.unknown or not args.quick:
        rates = RATES[:1] if args.quick else RATES
        wrong += learning.run(rates)
    print(f"in {time.perf_counter() - began:.0f} s")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
