"""Scenarios written once and played by both drivers, in virtual time.

A scenario is a list of calls, each with the moment it comes and what it does. `Threads`
plays every call in a thread on a manual clock, `Tasks` in a task on a virtual loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ratekeeper import AsyncLimiter, Limiter, MemoryStore
from ratekeeper.errors import RatekeeperError
from ratekeeper.testing import ManualClock, VirtualLoop, run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratekeeper import Grant, LimitStatus


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """A caller: when it comes, what it asks for, and what it does with its grant."""

    at_s: float = 0.0
    cost: dict[str, Any] = dataclasses.field(default_factory=dict)
    ask: dict[str, Any] = dataclasses.field(default_factory=dict)
    lasts_s: float = 0.0
    ends: Callable[[Grant], None] | None = None  # None: left without settling


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """What became of a call, in seconds since the start."""

    granted_s: float | None = None
    error: RatekeeperError | None = None
    ended_s: float = 0.0


class World(Protocol):
    """A limiter over a store of its own, and time to play calls in."""

    clock: ManualClock
    store: MemoryStore
    many: int  # callers that make a crowd here

    def play(
        self,
        limits: Sequence[str],
        calls: Sequence[Call],
        *,
        meanwhile: dict[float, Callable[[Limiter], None]] | None = None,
    ) -> list[Outcome]:
        """Play the calls to their end; `meanwhile` is done to the limiter, by time."""

    def status(self, key: str = "") -> dict[str, LimitStatus]:
        """Return the figures of the limits afterwards."""


class Threads:
    """Callers are threads."""

    many = 60

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(clock=self.clock)

    def play(
        self,
        limits: Sequence[str],
        calls: Sequence[Call],
        *,
        meanwhile: dict[float, Callable[[Limiter], None]] | None = None,
    ) -> list[Outcome]:
        self.limiter = Limiter(*limits, store=self.store, name="played")
        self._start_us = self.clock.now_us()
        outcomes = [Outcome() for _ in calls]
        parts = [
            partial(self._play, *pair) for pair in zip(calls, outcomes, strict=True)
        ]
        acts = [partial(self._act, *act) for act in (meanwhile or {}).items()]
        self.clock.run(*parts, *acts)
        return outcomes

    def status(self, key: str = "") -> dict[str, LimitStatus]:
        return self.limiter.status(key)

    def _now_s(self) -> float:
        return (self.clock.now_us() - self._start_us) / 1e6

    def _act(self, at_s: float, act: Callable[[Limiter], None]) -> None:
        self.clock.sleep(at_s)
        act(self.limiter)

    def _play(self, call: Call, outcome: Outcome) -> None:
        self.clock.sleep(call.at_s)
        try:
            with self.limiter.acquire(**call.cost, **call.ask) as grant:
                outcome.granted_s = self._now_s()
                self.clock.sleep(call.lasts_s)
                if call.ends is not None:
                    call.ends(grant)
        except RatekeeperError as error:
            outcome.error = error
        outcome.ended_s = self._now_s()


class Tasks:
    """Callers are tasks of one event loop."""

    many = 1000

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.clock = self.loop.clock
        self.store = MemoryStore(clock=self.clock)

    def play(
        self,
        limits: Sequence[str],
        calls: Sequence[Call],
        *,
        meanwhile: dict[float, Callable[[Limiter], None]] | None = None,
    ) -> list[Outcome]:
        # One name, one state: what is done meanwhile is done through a sync limiter.
        self.limiter = Limiter(*limits, store=self.store, name="played")
        tasks = AsyncLimiter(*limits, store=self.store, name="played")
        outcomes = [Outcome() for _ in calls]

        async def main() -> None:
            async with asyncio.TaskGroup() as group:
                for call, outcome in zip(calls, outcomes, strict=True):
                    group.create_task(self._play(tasks, call, outcome))
                for at_s, act in (meanwhile or {}).items():
                    self.loop.call_later(at_s, act, self.limiter)

        run_virtual(main(), self.loop)
        return outcomes

    def status(self, key: str = "") -> dict[str, LimitStatus]:
        return self.limiter.status(key)

    async def _play(self, limiter: AsyncLimiter, call: Call, outcome: Outcome) -> None:
        await asyncio.sleep(call.at_s)
        try:
            async with limiter.acquire(**call.cost, **call.ask) as grant:
                outcome.granted_s = self.loop.time()
                await asyncio.sleep(call.lasts_s)
                if call.ends is not None:
                    call.ends(grant)
        except RatekeeperError as error:
            outcome.error = error
        outcome.ended_s = self.loop.time()


def in_turn(count: int, *, since_s: float = 0.0, **fields: Any) -> list[Call]:
    """Make calls that come a microsecond apart: their order is their arrival."""
    return [Call(at_s=since_s + at * 1e-6, **fields) for at in range(count)]


def granted(outcomes: Sequence[Outcome]) -> list[float]:
    """Return when each call was granted; none may have failed."""
    times = []
    for outcome in outcomes:
        assert outcome.granted_s is not None, outcome.error
        times.append(outcome.granted_s)
    return times


def assert_idle(store: MemoryStore) -> None:
    """Nobody waits in the store, and no line is left."""
    assert 0 == store._waiting
    for scope, key in store._keys.kept:
        for meter in scope.rows[key]:
            assert meter.line is None
