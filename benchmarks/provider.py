"""Provider: the simulator's enforcer behind a flight, and the record of what it did.

It counts a call, answers or refuses it on a virtual clock, and shows of its limits what
its headers would: as they stood when it counted. It knows nothing of who waits, or how.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from typing import TYPE_CHECKING

from benchmarks.workload import SECOND, Shows
from ratekeeper.core.reading import Reading
from ratekeeper.simulator.enforcer import Admitted

if TYPE_CHECKING:
    from benchmarks.workload import Call, Case
    from ratekeeper.testing import VirtualLoop

_REFUSAL_US = SECOND // 5
_SHORT_US, _LONG_US, _LONG_ONE_IN = SECOND // 5, SECOND, 100  # the flight with jitter


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: the Retry-After of a 429 (None: let in), and the limits shown."""

    retry_after_s: float | None = None
    readings: tuple[Reading, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LetIn:
    """A call that the provider counted: when, what of its quota, how long it waited."""

    at_us: int
    counted: int
    waited_us: int


@dataclasses.dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of one arm. All times are microseconds since the start of the run."""

    arm: str
    let_in: list[LetIn] = dataclasses.field(default_factory=list)
    refused_at: list[int] = dataclasses.field(default_factory=list)
    vain: int = 0  # prompt tokens sent with attempts that were refused

    def answered(self, since_us: int, until_us: int) -> int:
        """Return how many calls were let in between two instants."""
        return sum(since_us <= one.at_us < until_us for one in self.let_in)

    def counted(self, since_us: int, until_us: int) -> int:
        """Return how much of the quota they took in the end."""
        return sum(
            one.counted for one in self.let_in if since_us <= one.at_us < until_us
        )

    def refusals(self, since_us: int, until_us: int) -> int:
        """Return how many attempts were refused between two instants."""
        return sum(since_us <= at < until_us for at in self.refused_at)


class Provider:
    """The enforcer behind a flight time, on a virtual clock."""

    def __init__(self, case: Case, loop: VirtualLoop) -> None:
        self._case = case
        self._clock = loop.clock
        self._start_us = loop.clock.now_us()
        self._enforcer = case.enforcer(self._start_us)
        self._flights = random.Random(case.seed + 1)
        self._answers = random.Random(case.seed + 2)

    def now_us(self) -> int:
        """Return the microseconds since the start of the run."""
        return self._clock.now_us() - self._start_us

    async def send(self, call: Call, asked_us: int, outcome: Outcome) -> Answer:
        """Make one attempt, and write down what came of it."""
        if self._case.model.jitter:
            await asyncio.sleep(self._flight_us() / SECOND)
        counted_us = self.now_us()
        handle = self._enforcer.admit(self._case.costs(call), self._clock.now_us())
        readings = self._readings()
        if not isinstance(handle, Admitted):
            outcome.refused_at.append(counted_us)
            outcome.vain += call.prompt
            await asyncio.sleep(_REFUSAL_US / SECOND)
            wait_us = max(0, (handle.wait_us or 0) - _REFUSAL_US)
            hint_s = -(-wait_us // 1000) / 1000  # rounded up to the ms, as headers are
            return Answer(retry_after_s=hint_s, readings=readings)
        outcome.let_in.append(
            LetIn(
                at_us=counted_us,
                counted=self._case.counted(call),
                waited_us=counted_us - asked_us,
            )
        )
        await asyncio.sleep(self._answer_us() / SECOND)
        self._enforcer.settle(handle, {"tokens": call.used}, self._clock.now_us())
        return Answer(readings=readings)

    def _readings(self) -> tuple[Reading, ...]:
        shows = self._case.shows
        if shows is Shows.NOTHING:
            return ()
        now_us = self._clock.now_us()
        return tuple(
            Reading(
                unit=one.rule.unit,
                limit=one.limit,
                remaining=one.remaining,
                full_after_us=one.full_at - now_us if shows is Shows.RESET else None,
            )  # no window: most headers name none
            for one in self._enforcer.standing(now_us)
        )

    def _answer_us(self) -> int:
        within_us = self._case.answer_within_us
        if within_us is None:
            return self._case.answer_us
        return self._answers.randint(0, within_us)

    def _flight_us(self) -> int:
        if self._flights.randrange(_LONG_ONE_IN) == 0:
            return _LONG_US
        return self._flights.randint(0, _SHORT_US)
