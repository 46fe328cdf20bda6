"""Full demand at a small account: two hundred tasks, ten minutes, in virtual time.

The provider counts by the simulator's own code and writes true headers; requests take
a moment to arrive, and answers a second or two.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import random
from typing import TYPE_CHECKING, Any

import httpx2
import openai

from benchmarks.inside import KEY, Inside
from benchmarks.virtual import PeerLoop
from ratekeeper import AsyncClient, AsyncLimiter, MemoryStore
from ratekeeper.client.transport import AsyncLimitedTransport
from ratekeeper.simulator.server import Simulator
from ratekeeper.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from benchmarks.inside import Edit

    Ask = Callable[..., Awaitable[object]]
    Closing = Callable[[], Awaitable[object]]

RPM, TPM = 60, 10_000
MINUTES, WARM_UP_S = 10, 60.0
TASKS = 200
FLIGHT_S = (0.02, 0.08)
CLIENTS = ("AsyncClient", "AsyncOpenAI")

# How providers hold 60 requests and 10k tokens a minute.
MODELS = {
    "token bucket": ("60 rpm using token-bucket", "10k tpm using token-bucket"),
    "sliding log": ("60 rpm using sliding-window", "10k tpm using sliding-window"),
    "fixed window": ("60 rpm using fixed-window", "10k tpm using fixed-window"),
    "10-s bucket": ("60 rpm burst 10", "10k tpm burst 1667"),
}
# `max_tokens` of the calls: which of the two limits binds.
LOADS = {"requests bind": (20, 220), "tokens bind": (100, 500)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What came of a run."""

    attempts: int
    requests: int  # calls of which an attempt was made
    refused: float  # the share of attempts that met a 429, after warm-up
    used: float  # of the limit that binds, after warm-up


class Account:
    """A provider's account in virtual time, and what is sent to it."""

    def __init__(self, *limits: str, edit: Edit | None = None, **options: Any) -> None:
        self.loop = PeerLoop()
        self.simulator = Simulator(
            "openai", limits, latency_s=1, jitter_s=1, clock=self.loop.clock, **options
        )
        self.edit = edit
        self.provider = Inside(
            self.loop, self.simulator, flight_s=FLIGHT_S, edit=self.note
        )
        self.seen: list[tuple[float, int, dict[str, Any]]] = []

    def note(self, request: httpx2.Request, answer: httpx2.Response) -> httpx2.Response:
        """Keep what was asked, and how it was answered."""
        body = json.loads(request.content)
        self.seen.append((self.loop.time(), answer.status_code, body))
        return answer if self.edit is None else self.edit(request, answer)

    def open(self, client: str, **options: Any) -> tuple[Ask, Closing]:
        """Open a client of the account; returns how to call it and to close it."""
        store = MemoryStore(clock=self.loop.clock)
        limits = options.pop("limits", (f"{RPM} rpm", f"{TPM} tpm"))
        if client == "AsyncClient":
            ai = AsyncClient(
                "openai",
                api_key=KEY,
                limits=limits,
                store=store,
                transport=self.provider,
                **options,
            )
            return ai.chat_completion, ai.close
        limiter = AsyncLimiter(*limits, account="openai", store=store)
        below = AsyncLimitedTransport(limiter, "openai", wrap=self.provider)
        http = httpx2.AsyncClient(transport=below)
        sdk = openai.AsyncOpenAI(api_key=KEY, http_client=http, **options)
        return sdk.chat.completions.create, sdk.close

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a program in virtual time."""
        run_virtual(main, self.loop)

    def figures(self) -> Figures:
        """Sum up what was seen."""
        warm = [row for row in self.seen if row[0] >= WARM_UP_S]
        good = [body for _, status, body in warm if status == 200]
        minutes = MINUTES - WARM_UP_S / 60
        tokens = sum(body["max_tokens"] for body in good)
        return Figures(
            attempts=len(self.provider.log),
            requests=len({body["seed"] for _, _, body in self.seen}),
            refused=sum(status == 429 for _, status, _ in warm) / len(warm),
            used=max(len(good) / RPM, tokens / TPM) / minutes,
        )


async def demand(
    ask: Ask, load: tuple[int, int], *, tasks: int = TASKS, minutes: int = MINUTES
) -> None:
    """Let tasks call without a pause until the time is over."""
    draw = random.Random(1)
    seeds = itertools.count()

    async def work() -> None:
        while True:
            await ask(
                model="m",
                messages=[{"role": "user", "content": "Hi"}],
                max_tokens=draw.randint(*load),
                seed=next(seeds),
            )

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(minutes * 60), asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(work())


async def beside(account: Account, rows: list[tuple[float, int]], *, rpm: int) -> None:
    """Be another program: call evenly, with a count of its own; note each answer."""
    wire = httpx2.ASGITransport(account.simulator)
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    async with (
        httpx2.AsyncClient(
            transport=wire, headers={"authorization": f"Bearer {KEY}"}
        ) as http,
        asyncio.TaskGroup() as group,
    ):

        async def call() -> None:
            answer = await http.post(
                "https://api.openai.com/v1/chat/completions",
                json=body | {"max_tokens": 100},
            )
            rows.append((account.loop.time(), answer.status_code))

        while True:
            await asyncio.sleep(60 / rpm)
            group.create_task(call())
