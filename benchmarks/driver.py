"""Driver: callers, an arm and an enforcer in one virtual hour that takes seconds.

Every arm meets the same calls, the same number of callers and the same provider. What
differs is the arm alone: what it lets go, and when.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks import oracle
from benchmarks.virtual import PeerLoop
from benchmarks.workload import MINUTE, SECOND
from ratekeeper.simulator.enforcer import Admitted
from ratekeeper.testing import run_virtual
from ratekeeper.testing.clock import EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.workload import Call, Case
    from ratekeeper.testing import VirtualLoop

ATTEMPTS = 3  # both SDKs: two retries
_REFUSAL_US = SECOND // 5
_SHORT_US, _LONG_US, _LONG_ONE_IN = SECOND // 5, SECOND, 100  # the flight with jitter


class Arm(Protocol):
    """A way to keep below a provider's limits."""

    name: str
    each_attempt: bool  # asked before each attempt; else the SDK backs off by itself

    async def admit(self, call: Call) -> Any:
        """Wait until a call may go."""

    async def answered(self, ticket: Any, call: Call) -> None:
        """Learn that the call was answered, and what it used."""

    async def refused(self, ticket: Any, call: Call, retry_after_s: float) -> None:
        """Learn that the provider said 429."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of one arm in one case."""

    arm: str
    answered: int = 0  # calls let in within the measured minutes
    counted: int = 0  # the tokens the provider counted for them in the end
    refused_early: int = 0  # 429s in the minutes that are not measured
    refused: int = 0  # 429s in those that are
    given_up: int = 0  # calls whose last attempt was refused
    vain: int = 0  # prompt tokens sent with attempts that were refused
    waits_us: list[int] = dataclasses.field(default_factory=list)
    of_oracle: float = 0.0

    @property
    def refusals(self) -> int:
        """All 429s of the run."""
        return self.refused_early + self.refused

    def wait_s(self, quantile: float) -> float:
        """Return a quantile of the time from asking to being let in, in seconds."""
        if not self.waits_us:
            return float("nan")
        waits = sorted(self.waits_us)
        return waits[min(len(waits) - 1, int(quantile * len(waits)))] / SECOND


class Provider:
    """The enforcer behind a flight time, on a virtual clock."""

    def __init__(self, case: Case, loop: VirtualLoop, outcome: Outcome) -> None:
        self._case = case
        self._clock = loop.clock
        self._start_us = loop.clock.now_us()
        self._enforcer = case.enforcer()
        self._rng = random.Random(case.seed + 1)
        self._outcome = outcome

    def now_us(self) -> int:
        """Return the microseconds since the start of the run."""
        return self._clock.now_us() - self._start_us

    async def send(self, call: Call, asked_us: int) -> float | None:
        """Make one attempt: None when it is answered, else the Retry-After in seconds."""
        if self._case.model.jitter:
            await asyncio.sleep(self._flight_us() / SECOND)
        counted_us = self.now_us()
        handle = self._enforcer.admit(
            self._case.costs(call), self._start_us + counted_us
        )
        measured = self._case.is_measured(counted_us)
        early = counted_us < self._case.skip_minutes * MINUTE
        outcome = self._outcome
        if not isinstance(handle, Admitted):
            outcome.refused += measured
            outcome.refused_early += early
            outcome.vain += call.prompt
            await asyncio.sleep(_REFUSAL_US / SECOND)
            wait_us = max(0, (handle.wait_us or 0) - _REFUSAL_US)
            return -(-wait_us // 1000) / 1000  # rounded up to the ms, as headers are
        if measured:
            outcome.answered += 1
            outcome.counted += self._case.counted(call)
            outcome.waits_us.append(counted_us - asked_us)
        await asyncio.sleep(self._case.answer_us / SECOND)
        self._enforcer.settle(
            handle, {"tokens": call.used}, self._start_us + self.now_us()
        )
        return None

    def _flight_us(self) -> int:
        if self._rng.randrange(_LONG_ONE_IN) == 0:
            return _LONG_US
        return self._rng.randint(0, _SHORT_US)


def sdk_backoff_s(attempt: int, retry_after_s: float, rng: random.Random) -> float:
    """Return what both official SDKs sleep after a 429 (openai 3.54, anthropic 2.12).

    A Retry-After above 0 and up to two minutes is followed, else 0.5 s doubles up to
    8 s, less up to a quarter.
    """
    if 0 < retry_after_s <= 120:
        return retry_after_s
    return min(0.5 * float(2**attempt), 8.0) * (1 - rng.uniform(0, 0.25))


async def _caller(
    provider: Provider, arm: Arm, demand: Iterator[Call], outcome: Outcome, seed: int
) -> None:
    rng = random.Random(seed)
    for call in demand:
        await asyncio.sleep(max(0, call.arrives_us - provider.now_us()) / SECOND)
        asked_us = provider.now_us()
        ticket = await arm.admit(call)
        for attempt in range(ATTEMPTS):
            if attempt and arm.each_attempt:
                ticket = await arm.admit(call)
            retry_after_s = await provider.send(call, asked_us)
            if retry_after_s is None:
                await arm.answered(ticket, call)
                break
            last = attempt == ATTEMPTS - 1
            outcome.given_up += last
            if last or arm.each_attempt:
                await arm.refused(ticket, call, retry_after_s)
            else:
                await asyncio.sleep(sdk_backoff_s(attempt, retry_after_s, rng))


async def _run(case: Case, make_arm: Any, loop: VirtualLoop) -> Outcome:
    outcome = Outcome(arm="")
    provider = Provider(case, loop, outcome)
    arm = make_arm(case, loop.clock)
    outcome.arm = arm.name
    demand = iter(case.calls())
    tasks = [
        asyncio.ensure_future(_caller(provider, arm, demand, outcome, seed))
        for seed in range(case.callers)
    ]
    _, pending = await asyncio.wait(
        tasks,
        timeout=(case.until_us - provider.now_us()) / SECOND,
        return_when=asyncio.FIRST_EXCEPTION,
    )
    for task in pending:
        task.cancel()
    for failure in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(failure, Exception):
            raise failure
    return outcome


def run(case: Case, make_arm: Any) -> Outcome:
    """Run one arm in one case; `make_arm(case, clock)` builds it inside the loop."""
    loop = PeerLoop()
    return run_virtual(_run(case, make_arm, loop), loop)  # type: ignore[no-any-return]


def best(case: Case) -> Outcome:
    """Run the oracle in one case."""
    calls = case.calls()
    outcome = Outcome(arm="oracle", of_oracle=1.0)
    for call, at in zip(calls, oracle.serve(case, calls, EPOCH), strict=False):
        if case.is_measured(at):
            outcome.answered += 1
            outcome.counted += case.counted(call)
    return outcome


def compare(case: Case, outcome: Outcome, yardstick: Outcome) -> Outcome:
    """Fill in the share of the oracle: of the tokens counted, else of the calls."""
    if case.tpm is None:
        outcome.of_oracle = outcome.answered / yardstick.answered
    else:
        outcome.of_oracle = outcome.counted / yardstick.counted
    return outcome
