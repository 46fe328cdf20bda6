"""Outage: a provider down for five minutes under full demand, and what its return finds.

Run with `python -m benchmarks.outage [calls per second]`. Calls come evenly, whatever
becomes of those before them, so nothing slows the callers down but the client. Each
fault is played for the plain client, whose retries are ours, for the official SDK with
its own retries over our transport, and for the SDK alone; all in virtual time.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import httpx2

from benchmarks import inside
from benchmarks.inside import KEY, Inside
from benchmarks.virtual import PeerLoop
from ratekeeper import AsyncClient, AsyncLimiter, MemoryStore
from ratekeeper.client.transport import AsyncLimitedTransport
from ratekeeper.simulator.server import Simulator
from ratekeeper.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.inside import Fault

    Ask = Callable[[], Awaitable[object]]

DOWN_S, UP_S = 80, 380  # five minutes
END_S = 460
_TIMEOUT_S = 10.0
_NEARLY = 0.95
_GOOD = 200
_SPAN_S = 60  # what a rate is told over: the window of the limit

CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 9,
}
FAULTS: dict[str, Fault] = {
    "503": inside.overloaded,
    "connection refused": inside.refused,
    "connect time-out": inside.unconnected,
    "read time-out": inside.silent,
}
CLIENTS = ("AsyncClient", "AsyncOpenAI")
BARE = "bare AsyncOpenAI"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What an outage came to."""

    requests: int  # calls that were made
    attempts: int  # how often one of them left for the provider
    answered: int  # calls that came to an answer
    normal: float  # answers a second before the outage
    recovered_s: int  # from the provider's return until that rate is held
    quota: int  # what the provider lets through in a minute

    @property
    def bound(self) -> float:
        """The most attempts there may be."""
        return self.requests * 1.1 + self.quota


def measure(client: str, fault: str, per_second: int) -> Figures:
    """Play one outage: a quarter more is asked for than the provider lets through."""
    loop = PeerLoop()
    quota = per_second * 60 * 4 // 5
    simulator = Simulator(
        "openai", [f"{quota} rpm"], latency_s=0.5, jitter_s=1.0, clock=loop.clock
    )
    provider = Inside(loop, simulator, flight_s=(0.01, 0.05))
    play = _play(loop, provider, client, FAULTS[fault], quota, per_second)
    answered: int = run_virtual(play, loop)
    good = [0] * END_S
    for at_s, status in provider.log:
        good[min(int(at_s), END_S - 1)] += status == _GOOD
    normal = sum(good[DOWN_S - _SPAN_S : DOWN_S]) / _SPAN_S
    return Figures(
        requests=END_S * per_second,
        attempts=len(provider.log),
        answered=answered,
        normal=normal,
        recovered_s=_recovery(good[UP_S:], normal),
        quota=quota,
    )


def _recovery(seconds: list[int], normal: float) -> int:
    """Return the first second from which on the normal rate is held for a minute."""
    for at in range(len(seconds) - _SPAN_S):
        if sum(seconds[at : at + _SPAN_S]) >= _NEARLY * normal * _SPAN_S:
            return at
    return len(seconds)


async def _play(
    loop: PeerLoop,
    provider: Inside,
    client: str,
    fault: Fault,
    quota: int,
    per_second: int,
) -> int:
    """Make the calls; returns how many were answered."""
    ask, close = _open(client, provider, quota, MemoryStore(clock=loop.clock))
    loop.call_later(DOWN_S, setattr, provider, "fault", fault)
    loop.call_later(UP_S, setattr, provider, "fault", None)
    answered = 0

    async def call() -> None:
        nonlocal answered
        with contextlib.suppress(Exception):  # of every kind there is
            await ask()
            answered += 1

    async with asyncio.TaskGroup() as group:
        for number in range(END_S * per_second):
            await asyncio.sleep(max(0.0, number / per_second - loop.time()))
            group.create_task(call())
    await close()
    return answered


def _open(
    client: str, provider: Inside, quota: int, store: MemoryStore
) -> tuple[Ask, Callable[[], Awaitable[object]]]:
    """Open a client; returns how to call, and how to close it."""
    limit = f"{quota} rpm"
    if client == "AsyncClient":
        ai = AsyncClient(
            "openai",
            api_key=KEY,
            limits=[limit],
            timeout=_TIMEOUT_S,
            store=store,
            transport=provider,
        )
        return (lambda: ai.chat_completion(**CHAT)), ai.close
    import openai

    below: httpx2.AsyncBaseTransport = provider
    if client != BARE:
        limiter = AsyncLimiter(limit, account="openai", store=store)
        below = AsyncLimitedTransport(limiter, "openai", wrap=provider)
    sdk = openai.AsyncOpenAI(
        api_key=KEY,
        timeout=_TIMEOUT_S,
        http_client=httpx2.AsyncClient(transport=below),
    )
    return (lambda: sdk.chat.completions.create(**CHAT)), sdk.close


def main() -> None:
    """Play every outage and print what came of it."""
    per_second = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    print(f"Five minutes down at {per_second} calls a second:\n")
    print("| client | fault | calls | attempts | a call | answered | normal | again |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for client in (*CLIENTS, BARE):
        for fault in FAULTS:
            found = measure(client, fault, per_second)
            print(
                f"| {client} | {fault} | {found.requests} | {found.attempts} "
                f"| {found.attempts / found.requests:.3f} | {found.answered} "
                f"| {found.normal:.1f}/s | {found.recovered_s} s |",
                flush=True,
            )


if __name__ == "__main__":
    main()
