"""Kindness: ten calls at once after a rest, once the provider has been met.

Five minutes of demand, three of rest, then ten calls in one instant: how long until the
last of them starts. A person who was away for a while should not wait for what the
provider would have let in. After three more minutes, the same again.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

from benchmarks import pool
from benchmarks.driver import Program, play
from benchmarks.provider import Provider
from benchmarks.unknown import ALL, MOST_REFUSALS, Arm
from benchmarks.virtual import PeerLoop
from benchmarks.workload import MINUTE, MODELS, SECOND, Call, Case, Shows
from ratekeeper.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.workload import Model

RPM, TOGETHER = 60, 10
DEMAND_US, REST_US = 5 * MINUTE, 3 * MINUTE
LATER_S = range(0, 60, 7)  # the rest is longer by these: no minute is special
BAR_MS = 50
ALLOWS = ("tb60", "log", "fixed")  # who is asked: a small bucket may not let ten in
MODELS_MET = [model for model in MODELS if not model.jitter]
ASKED = (
    f"the last of {TOGETHER} starts within {BAR_MS} ms at {', '.join(ALLOWS)} (without "
    f"headers: the second time); at most {MOST_REFUSALS} refusals, none once learned"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """What came of the ten calls after one rest."""

    last_ms: float  # until the last was let in
    refused: int

    def __str__(self) -> str:
        return f"{self.last_ms:,.0f} ms ({self.refused})"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The worst of the rests that were tried."""

    busy: int  # 429s in the five minutes
    first: Rest
    again: Rest

    def __str__(self) -> str:
        return f"{self.busy} · {self.first} · {self.again}"

    def clears(self, arm: Arm, model: Model) -> bool:
        """Say whether it is as kind as is asked.

        What may go at once is learned from headers under any demand, but without them
        only from calls that come at once: then the second time is judged.
        """
        learned = self.again if arm.shows is Shows.NOTHING else self.first
        refusals = self.busy + self.first.refused + self.again.refused
        kind = self.again.refused == learned.refused == 0 and refusals <= MOST_REFUSALS
        return kind and (model.name not in ALLOWS or learned.last_ms <= BAR_MS)


async def _meet(case: Case, arm: Arm, rest_us: int, loop: PeerLoop) -> Row:
    provider = Provider(case, loop)
    keeper = arm.make(case, loop.clock)
    demand = itertools.takewhile(lambda _: provider.now_us() < DEMAND_US, case.calls())
    busy = Program.of(keeper, demand, case.callers)
    await play(provider, DEMAND_US + rest_us, busy)
    rests = []
    for times in (1, 2):
        at_us = DEMAND_US + times * rest_us
        ten = [Call(arrives_us=at_us, used=1, reserved=1) for _ in range(TOGETHER)]
        back = Program.of(keeper, ten, TOGETHER)
        await play(provider, at_us + REST_US, back)
        waits = [one.waited_us for one in back.outcome.let_in]
        assert len(waits) == TOGETHER, f"{len(waits)} of {TOGETHER} were let in"
        refused = len(back.outcome.refused_at)
        rests.append(Rest(last_ms=max(waits) / 1000, refused=refused))
    first, again = rests
    return Row(busy=len(busy.outcome.refused_at), first=first, again=again)


def measure(arm: Arm, model: Model, rests_s: Sequence[int] = LATER_S) -> Row:
    """Return the worst figures over all the rests."""
    rows = []
    case = Case(model=model, rpm=RPM, minutes=DEMAND_US // MINUTE, shows=arm.shows)
    for later_s in rests_s:
        loop = PeerLoop()
        rest_us = REST_US + later_s * SECOND
        rows.append(run_virtual(_meet(case, arm, rest_us, loop), loop))
    return Row(
        busy=max(row.busy for row in rows),
        first=_worst([row.first for row in rows]),
        again=_worst([row.again for row in rows]),
    )


def _worst(rests: list[Rest]) -> Rest:
    return Rest(
        last_ms=max(rest.last_ms for rest in rests),
        refused=max(rest.refused for rest in rests),
    )


def run() -> list[str]:
    """Measure, print, and return the bars that are missed."""
    found = pool.spread(measure, [(arm, model) for arm in ALL for model in MODELS_MET])
    names = [model.name for model in MODELS_MET]
    print(f"### {TOGETHER} calls at once after a rest, {RPM} rpm\n")
    print(
        "429s in the minutes of demand · until the last of the ten starts (429s) after "
        "the first rest · after the second; the worst of all rests\n"
    )
    print(f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|", sep="\n")
    for arm in ALL:
        cells = [str(found[arm, model]) for model in MODELS_MET]
        print(f"| {arm} | {' | '.join(cells)} |")
    return [
        f"kindness, {model.name}, {arm}: {row}"
        for (arm, model), row in found.items()
        if not row.clears(arm, model)
    ]
