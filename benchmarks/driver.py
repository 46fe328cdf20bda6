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
from benchmarks.provider import LetIn, Outcome, Provider
from benchmarks.virtual import PeerLoop
from benchmarks.workload import SECOND
from ratekeeper.testing import run_virtual
from ratekeeper.testing.clock import EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from benchmarks.provider import Answer
    from benchmarks.workload import Call, Case
    from ratekeeper.testing import VirtualLoop

ATTEMPTS = 3  # both SDKs: two retries


class Arm(Protocol):
    """A way to keep below a provider's limits."""

    name: str
    each_attempt: bool  # asked before each attempt; else the SDK backs off by itself

    async def admit(self, call: Call) -> Any:
        """Wait until a call may go."""

    async def answered(self, ticket: Any, call: Call, answer: Answer) -> None:
        """Learn that the call was answered, and what it used."""

    async def refused(self, ticket: Any, call: Call, answer: Answer) -> None:
        """Learn that the provider said 429."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """An arm, the calls that want through it, and what came of them."""

    arm: Arm
    outcome: Outcome
    demand: Iterator[Call]
    callers: int

    @classmethod
    def of(cls, arm: Arm, demand: Iterable[Call], callers: int) -> Program:
        """Begin a program that nothing has come of yet."""
        outcome = Outcome(arm=arm.name)
        return cls(arm=arm, outcome=outcome, demand=iter(demand), callers=callers)


def sdk_backoff_s(attempt: int, retry_after_s: float, rng: random.Random) -> float:
    """Return what both official SDKs sleep after a 429 (openai 3.54, anthropic 2.12).

    A Retry-After above 0 and up to two minutes is followed, else 0.5 s doubles up to
    8 s, less up to a quarter.
    """
    if 0 < retry_after_s <= 120:
        return retry_after_s
    return min(0.5 * float(2**attempt), 8.0) * (1 - rng.uniform(0, 0.25))


async def _caller(provider: Provider, program: Program, seed: int) -> None:
    rng = random.Random(seed)
    for call in program.demand:
        await asyncio.sleep(max(0, call.arrives_us - provider.now_us()) / SECOND)
        await _make(call, provider, program, rng)


async def _make(
    call: Call, provider: Provider, program: Program, rng: random.Random
) -> None:
    asked_us = provider.now_us()
    arm = program.arm
    ticket = await arm.admit(call)
    for attempt in range(ATTEMPTS):
        if attempt and arm.each_attempt:
            ticket = await arm.admit(call)
        answer = await provider.send(call, asked_us, program.outcome)
        if answer.retry_after_s is None:
            await arm.answered(ticket, call, answer)
            return
        if arm.each_attempt or attempt == ATTEMPTS - 1:
            await arm.refused(ticket, call, answer)
        else:
            await asyncio.sleep(sdk_backoff_s(attempt, answer.retry_after_s, rng))


async def play(provider: Provider, until_us: int, *programs: Program) -> None:
    """Let programs work their demand off at one provider, no longer than until then."""
    tasks = [
        asyncio.ensure_future(_caller(provider, program, seed))
        for program in programs
        for seed in range(program.callers)
    ]
    _, pending = await asyncio.wait(
        tasks,
        timeout=(until_us - provider.now_us()) / SECOND,
        return_when=asyncio.FIRST_EXCEPTION,
    )
    for task in pending:
        task.cancel()
    for failure in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(failure, Exception):
            raise failure


async def _run(case: Case, makes: Sequence[Any], loop: VirtualLoop) -> list[Outcome]:
    provider = Provider(case, loop)
    programs = [
        Program.of(make(case, loop.clock), calls, case.callers)
        for make, calls in zip(makes, _demands(case, len(makes)), strict=True)
    ]
    await play(provider, case.until_us, *programs)
    return [program.outcome for program in programs]


def _demands(case: Case, programs: int) -> list[list[Call]]:
    """Draw the calls of each program: the first has the case's own."""
    return [
        dataclasses.replace(case, seed=case.seed + 100 * number).calls()
        for number in range(programs)
    ]


def run_together(case: Case, makes: Sequence[Any]) -> list[Outcome]:
    """Run several arms at one provider; `make(case, clock)` builds one in the loop."""
    loop = PeerLoop()
    return run_virtual(_run(case, makes, loop), loop)  # type: ignore[no-any-return]


def run(case: Case, make_arm: Any) -> Outcome:
    """Run one arm in one case."""
    return run_together(case, [make_arm])[0]


def best(case: Case, *, programs: int = 1) -> Outcome:
    """Run the oracle in one case."""
    demands = _demands(case, programs)
    calls = sorted((c for calls in demands for c in calls), key=lambda c: c.arrives_us)
    outcome = Outcome(arm="oracle")
    for call, at in zip(calls, oracle.serve(case, calls, EPOCH), strict=False):
        outcome.let_in.append(
            LetIn(
                at_us=at,
                counted=case.counted(call),
                waited_us=at - call.arrives_us,
            )
        )
    return outcome
