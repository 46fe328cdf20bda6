"""`make bench-quota`: how much of a provider's quota each way of waiting gets out of it.

Every arm meets the same calls at the same enforcer, on a virtual clock, beside a
clairvoyant first-come oracle. Prints a table a rate, and checks the bars for the arm
that knows the provider's model: 0 refusals, and its share of the oracle.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import multiprocessing
import os
import sys
import time
from typing import Any

from benchmarks import driver, peers, virtual
from benchmarks.arms import BareSDK, Ratekeeper, paced
from benchmarks.workload import MODELS, TPM, Case, Model

RATES = (60, 300, 3_000)
DRAWS = 4  # of calls with tokens: their sizes matter. Every figure is a run's mean
BUSY_RPM, SHORT_MINUTES = 3_000, 5  # where peers run for less than twenty minutes
BAR, BAR_HARD = 0.995, 0.98  # the second under jitter, and for tokens
OURS: dict[str, Any] = {"known": Ratekeeper, "paced": paced, "bare": BareSDK}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What one table is about."""

    rpm: int
    tpm: int | None = None
    refunds: bool = False

    @property
    def models(self) -> list[Model]:
        return [m for m in MODELS if m.tokens or self.tpm is None]

    def __str__(self) -> str:
        if self.tpm is None:
            return f"{self.rpm} rpm, requests alone"
        back = "come back" if self.refunds else "do not come back"
        return f"{self.rpm} rpm + {self.tpm // 1000}k tpm, unused tokens {back}"


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
    pairs = []
    for seed in range(1, draws + 1):
        case = Case(
            model=model,
            rpm=setting.rpm,
            tpm=setting.tpm,
            refunds=setting.refunds,
            minutes=SHORT_MINUTES if short else 20,
            seed=seed,
        )
        pairs.append((driver.run(case, peer or OURS[name]), driver.best(case)))
    outcomes = [outcome for outcome, _ in pairs]
    what = "answered" if setting.tpm is None else "counted"
    return Row(
        arm=outcomes[0].arm,
        answered=sum(x.answered for x in outcomes) / draws,
        share=sum(getattr(x, what) for x in outcomes)
        / sum(getattr(best, what) for _, best in pairs),
        early=sum(x.refused_early for x in outcomes) / draws,
        late=sum(x.refused for x in outcomes) / draws,
        vain=sum(x.vain for x in outcomes) / draws,
        short=short,
    )


Results = dict[tuple[Setting, str, str], Row]


def measure_all(settings: list[Setting], names: list[str]) -> Results:
    """Measure every arm at every provider, on every core there is.

    Virtual time is installed before a worker imports the peers.
    """
    jobs = [
        (setting, model, name)
        for setting in sorted(settings, key=lambda s: s.tpm is not None)
        for name in names
        for model in setting.models
    ]
    jobs.sort(key=lambda job: -job[0].rpm)  # the long ones first
    rows: Results = {}
    spawn = multiprocessing.get_context("spawn")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    with concurrent.futures.ProcessPoolExecutor(
        cores, mp_context=spawn, initializer=virtual.install
    ) as pool:
        futures = {pool.submit(measure, *job): job for job in jobs}
        for done in concurrent.futures.as_completed(futures):
            setting, model, name = futures[done]
            rows[setting, model.name, name] = done.result()
            if sys.stderr.isatty():
                print(f"\r{len(rows)} of {len(jobs)}", end="", file=sys.stderr)
    return rows


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


def settings_of(*, quick: bool) -> list[Setting]:
    """List what is measured: with `quick`, the smallest rate."""
    return [
        setting
        for rpm in (RATES[:1] if quick else RATES)
        for setting in (
            Setting(rpm=rpm),
            Setting(rpm=rpm, tpm=TPM),
            Setting(rpm=rpm, tpm=TPM, refunds=True),
        )
    ]


def main() -> int:
    """Measure, print, and return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="bench-quota", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="60 rpm and no peers")
    quick = parser.parse_args().quick
    found, missing = ([], []) if quick else peers.present()
    names = [*OURS, *(peer.package for peer in found)]
    settings = settings_of(quick=quick)
    began = time.perf_counter()
    rows = measure_all(settings, names)
    print(
        "\nanswered · share of the oracle · 429s in minutes 0-2 / 2-20 · tokens sent in "
        f"vain; the mean of a run.\n† minutes 2-{SHORT_MINUTES} alone.\n"
    )
    for setting in settings:
        print(table(setting, names, rows), end="\n\n")
    print(*peers.versions(found), *missing, sep="\n")
    print(f"{len(rows)} rows in {time.perf_counter() - began:.0f} s")
    wrong = missed(settings, rows)
    asked = f"0 refusals, {BAR:.1%} of the oracle ({BAR_HARD:.0%}: jitter, tokens)"
    print(f"bars ({asked}): {'MISSED' if wrong else 'all cleared'}", *wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
