"""Night: the 2 a.m. story, played against two simulated providers at once.

The same calls leave at the same moments on both sides; one side has Ratekeeper's
transport below its HTTP client, the other nothing. It counts what callers saw and asks
each provider what it saw. How it looks on a screen is none of its business.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import random
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import httpx2

from ratekeeper.client.transport import AsyncLimitedTransport
from ratekeeper.errors import LimitExceeded
from ratekeeper.limiter import AsyncLimiter
from ratekeeper.providers.catalog import find_provider
from ratekeeper.simulator.server import Simulator
from ratekeeper.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SCRIPT = "load-test"
USERS = ("search", "support", "reports")
MODEL = "night-owl"
LIMITS = ("60 rpm", "20k tpm")
SHARE = "15 rpm"  # what Ratekeeper lets any one caller have of them
BUDGET = "$0.10/day"  # what it lets a caller spend whom nobody has named
PRICES = {MODEL: {"input": "15", "output": "75"}}  # made up, as the model is
BAN_AFTER = 40  # refusals within a minute
BAN_HOURS = 4

CALLS = 800  # of the stray script
FIRED_FROM_S, FIRED_FOR_S = 4.0, 30.0
LAST_CALL_S = 56.0
_EVERY_S = 6.0  # how often each of the other users asks
PATIENCE_S = 20.0  # how long any caller waits for its turn
_PROMPT_WORDS = (60, 240)
_MAX_TOKENS = 100
_ASK_S = 0.25  # how often the provider is asked what it saw


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One call of the story: when, whose, and how long its prompt is."""

    at_s: float
    who: str
    words: int


def plan(seed: int) -> list[Call]:
    """Write the night's calls: the users' all along, the script's in its 30 seconds."""
    source = random.Random(seed)  # noqa: S311 - a story, no secret
    step = FIRED_FOR_S / CALLS
    calls = [
        Call(FIRED_FROM_S + n * step, SCRIPT, source.randint(*_PROMPT_WORDS))
        for n in range(CALLS)
    ]
    for place, who in enumerate(USERS):
        at = 0.5 + place * _EVERY_S / len(USERS)
        while at < LAST_CALL_S:
            calls.append(Call(at, who, source.randint(*_PROMPT_WORDS)))
            at += source.uniform(0.8, 1.2) * _EVERY_S
    return sorted(calls, key=lambda call: call.at_s)


def provider(seed: int) -> Simulator:
    """Make the provider that both sides have one of."""
    return Simulator(
        "openai",
        LIMITS,
        latency_s=0.3,
        jitter_s=0.3,
        ban_after=BAN_AFTER,
        ban_s=BAN_HOURS * 3600.0,
        seed=seed,
    )


@dataclasses.dataclass(slots=True)
class Tally:
    """What became of the calls of one kind of caller, as the callers saw it."""

    asked: int = 0
    answered: int = 0
    refused: int = 0  # 429, by the provider
    held: int = 0  # by Ratekeeper, never sent
    failed: int = 0  # anything else
    longest_s: float = 0.0  # until an answer
    outcomes: list[bool] = dataclasses.field(default_factory=list)

    @property
    def open(self) -> int:
        """How many calls have neither an answer nor a refusal yet."""
        return self.asked - self.answered - self.refused - self.held - self.failed


class Side:
    """One way to live through the night."""

    def __init__(
        self, name: str, url: str, *, limited: bool, patience_s: float = PATIENCE_S
    ) -> None:
        self.name = name
        self.script = Tally()
        self.users = Tally()
        self.seen: dict[str, Any] = {}  # what the provider saw
        self.banned_at_s: float | None = None
        self._url = url
        self._began = 0.0
        self._limits = _Limits(patience_s) if limited else None
        self._client = httpx2.AsyncClient(
            transport=self._limits.transport if self._limits else _wire(),
            timeout=60.0,
        )
        self._stats = httpx2.AsyncClient(timeout=10.0)

    async def play(self, calls: Sequence[Call], began: float) -> None:
        """Let every call leave at its moment, and wait for what becomes of it."""
        self._began = began
        async with self._client, self._stats, asyncio.TaskGroup() as group:
            asking = group.create_task(self._keep_asking())
            async with asyncio.TaskGroup() as sent:
                for call in calls:
                    await asyncio.sleep(began + call.at_s - time.monotonic())
                    sent.create_task(self._send(call))
            asking.cancel()
            await self._ask()

    async def _send(self, call: Call) -> None:
        """Send one call, and count what became of it."""
        tally = self.script if call.who == SCRIPT else self.users
        tally.asked += 1
        left = time.monotonic()
        try:
            response = await self._post(call)
        except LimitExceeded:
            tally.held += 1
            tally.outcomes.append(False)
            return
        except httpx2.HTTPError:
            tally.failed += 1
            tally.outcomes.append(False)
            return
        good = response.status_code == httpx2.codes.OK
        tally.outcomes.append(good)
        if good:
            tally.answered += 1
            tally.longest_s = max(tally.longest_s, time.monotonic() - left)
        elif response.status_code == httpx2.codes.TOO_MANY_REQUESTS:
            tally.refused += 1
            self._notice_ban(response)
        else:
            tally.failed += 1

    async def _post(self, call: Call) -> httpx2.Response:
        """Send a call as the openai package does, once."""
        return await self._client.post(
            f"{self._url}/chat/completions",
            json={
                "model": MODEL,
                "messages": [{"role": "user", "content": "word " * call.words}],
                "max_tokens": _MAX_TOKENS,
            },
            headers={"authorization": f"Bearer sk-{call.who}"},
            extensions=self._limits.terms(call.who) if self._limits else {},
        )

    def _notice_ban(self, response: httpx2.Response) -> None:
        code = json.loads(response.content)["error"]["code"]
        if self.banned_at_s is None and code == "temporarily_banned":
            self.banned_at_s = time.monotonic() - self._began

    async def _keep_asking(self) -> None:
        while True:
            with contextlib.suppress(httpx2.HTTPError):  # the last one counts
                await self._ask()
            await asyncio.sleep(_ASK_S)

    async def _ask(self) -> None:
        """Ask the provider what it has seen."""
        response = await self._stats.get(f"{self._url.removesuffix('/v1')}/_stats")
        self.seen = response.json()

    def figures(self) -> dict[str, Any]:
        """Return the figures of the night: the provider's, then the callers'."""
        by_key = {who: self.seen["by_key"].get(f"sk-{who}", {}) for who in USERS}
        script = self.seen["by_key"].get(f"sk-{SCRIPT}", {})
        return {
            "reached_the_provider": self.seen["requests"],
            "refused_with_429": self.seen["by_status"].get("429", 0),
            "bans": self.seen["bans"],
            "tokens_in_vain": self.seen["tokens_in_vain"],
            "busiest_minute": self.seen["worst_minute_requests"],
            "script": {
                "spent_usd": float(paid(script)),
                "asked": self.script.asked,
                "answered": script.get("200", 0),
                "refused_with_429": script.get("429", 0),
                "held_back": self.script.held,
                "failed": self.script.failed,
            },
            "users": {
                "spent_usd": float(sum(paid(one) for one in by_key.values())),
                "asked": self.users.asked,
                "answered": sum(one.get("200", 0) for one in by_key.values()),
                "refused_with_429": sum(one.get("429", 0) for one in by_key.values()),
                "held_back": self.users.held,
                "failed": self.users.failed,
                "longest_answer_s": round(self.users.longest_s, 2),
            },
        }


def paid(counts: Mapping[str, int]) -> Decimal:
    """Say what a caller's answers cost, by the tokens the provider counted."""
    price = PRICES[MODEL]
    total = sum(Decimal(price[way]) * counts.get(f"{way}_tokens", 0) for way in price)
    return total / Decimal(1_000_000)


class _Limits:
    """The account's limits and each caller's share, granted together or not at all."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        store = MemoryStore()
        known = find_provider("openai")
        account = AsyncLimiter(*LIMITS, store=store, account=known.account())
        self._share = AsyncLimiter(SHARE, store=store)
        self._budget = AsyncLimiter(BUDGET, store=store)
        self.transport = AsyncLimitedTransport(
            account, known, wrap=_wire(), raise_refusals=True, prices=PRICES
        )

    def terms(self, who: str) -> dict[str, Any]:
        """Say on whose account and how urgently a caller asks.

        Nobody knows of the stray script: its priority and its budget are those of any
        caller nobody has named, the users' priority that of people who wait for an
        answer.
        """
        also = [(self._share, who)]
        if who not in USERS:
            also.append((self._budget, who))
        terms = {
            "also": also,
            "timeout": self._patience_s,
            "priority": "interactive" if who in USERS else "normal",
        }
        return {"ratekeeper": terms}


def _wire() -> httpx2.AsyncHTTPTransport:
    """Make the connections of either side: as many as the openai package allows."""
    limits = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)
    return httpx2.AsyncHTTPTransport(limits=limits, trust_env=False)


async def play(
    sides: Sequence[Side],
    calls: Sequence[Call],
    tick: Callable[[float], None],
    *,
    every_s: float,
) -> float:
    """Play both sides at once, calling `tick` with the seconds gone; returns them."""
    began = time.monotonic()

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            for side in sides:
                group.create_task(side.play(calls, began))

    playing = asyncio.create_task(both())
    try:
        while not playing.done():
            tick(time.monotonic() - began)
            await asyncio.wait({playing}, timeout=every_s)
    finally:
        playing.cancel()  # nothing, where it is done
        await asyncio.wait({playing})
    await playing
    took = time.monotonic() - began
    tick(took)
    return took
