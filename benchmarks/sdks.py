"""`make bench-http`: both official SDKs, unchanged, at full demand over real HTTP.

Each pair of a client and a load has a process and a simulated provider of its own on
127.0.0.1, which enforces with a token bucket and counts what it refuses. After a
warm-up that uses the burst, two windows of 60 s are measured in real time. First with
Ratekeeper's `http_client` in the SDKs, then the bare SDKs with their own two retries.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import importlib
import importlib.metadata
import multiprocessing
import random
import sys
import threading
import time
from typing import Any

from benchmarks.quota import BAR, BAR_HARD
from ratekeeper import async_http_client, http_client
from ratekeeper.simulator.server import Simulator, serving

RPM, TPM = 300, 120_000
WINDOW_S, WINDOWS, WARM_S = 60.0, 2, 20.0
CALLERS = 40
LATENCY_S = 0.2
SMALLEST, LARGEST = 200, 4_000  # tokens a call takes where tokens bind
KEY = {"openai": f"sk-{'0' * 48}", "anthropic": f"sk-ant-{'0' * 48}"}
TEXT = "the "  # one token of the simulated provider


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One client, and which limit binds it."""

    client: str  # OpenAI, AsyncOpenAI, Anthropic, AsyncAnthropic
    tokens: bool
    told: str  # what Ratekeeper is told after "300 rpm"

    @property
    def provider(self) -> str:
        return self.client.removeprefix("Async").lower()

    @property
    def is_async(self) -> bool:
        return self.client.startswith("Async")

    @property
    def limits(self) -> list[str]:
        unit = "tpm" if self.provider == "openai" else "itpm"
        return [f"{RPM} rpm", f"{TPM} {unit}"]


LOADS = (
    Load(client="OpenAI", tokens=False, told=" using token-bucket"),
    Load(client="AsyncOpenAI", tokens=True, told=" using token-bucket"),
    Load(client="Anthropic", tokens=False, told=""),
    Load(client="AsyncAnthropic", tokens=True, told=""),
)


@dataclasses.dataclass(kw_only=True)
class Result:
    """What one load came to."""

    answered: list[tuple[float, int]]  # when, and the tokens the provider counted
    errors: int
    refused: int  # 429s that the provider sent, those the SDK hid included
    began: float

    def windows(self, load: Load) -> list[float]:
        """Return the share of the quota used in each window."""
        shares = []
        for at in range(WINDOWS):
            start = self.began + WARM_S + at * WINDOW_S
            within = [n for t, n in self.answered if start <= t < start + WINDOW_S]
            used = sum(within) / TPM if load.tokens else len(within) / RPM
            shares.append(used)
        return shares


class Caller:
    """The demand on one client: asks again as soon as it is answered."""

    def __init__(self, load: Load, url: str, *, bare: bool) -> None:
        self._load = load
        self._rng = random.Random(1)
        self.result = Result(answered=[], errors=0, refused=0, began=time.monotonic())
        self.ends = self.result.began + WARM_S + WINDOWS * WINDOW_S
        sdk = importlib.import_module(load.provider)
        options: dict[str, Any] = {}
        if not bare:
            make = async_http_client if load.is_async else http_client
            told = [f"{limit}{load.told}" for limit in load.limits]
            options["http_client"] = make(load.provider, *told)
        self._failure = sdk.APIError
        self._sdk = getattr(sdk, load.client)(
            base_url=url, api_key=KEY[load.provider], **options
        )

    def ask(self) -> dict[str, Any]:
        """Make up a call."""
        size = self._rng.randint(SMALLEST, LARGEST) if self._load.tokens else 50
        words = size if self._load.provider == "anthropic" else 20
        most = size if self._load.provider == "openai" else 50
        message = {"role": "user", "content": TEXT * words}
        return {"model": "m", "max_tokens": most, "messages": [message]}

    def create(self, ask: dict[str, Any]) -> Any:
        """Call the SDK as anyone does."""
        if self._load.provider == "openai":
            return self._sdk.chat.completions.create(**ask)
        return self._sdk.messages.create(**ask)

    def note(self, ask: dict[str, Any], reply: Any) -> None:
        """Count an answered call."""
        counted = ask["max_tokens"]
        if self._load.provider == "anthropic":
            counted = reply.usage.input_tokens
        self.result.answered.append((time.monotonic() - LATENCY_S, counted))

    def work(self) -> None:
        """Be one caller of a sync client."""
        while time.monotonic() < self.ends:
            ask = self.ask()
            try:
                self.note(ask, self.create(ask))
            except self._failure:
                self.result.errors += 1

    async def work_async(self) -> None:
        """Be one caller of an async client."""
        while time.monotonic() < self.ends:
            ask = self.ask()
            try:
                self.note(ask, await self.create(ask))
            except self._failure:
                self.result.errors += 1

    def run(self) -> None:
        """Keep the client busy until the end; whoever waits then is left there."""
        if self._load.is_async:
            asyncio.run(self._run_async())
            return
        for _ in range(CALLERS):
            threading.Thread(target=self.work, daemon=True).start()
        time.sleep(max(0.0, self.ends - time.monotonic()))

    async def _run_async(self) -> None:
        tasks = [asyncio.ensure_future(self.work_async()) for _ in range(CALLERS)]
        await asyncio.wait(tasks, timeout=self.ends - time.monotonic())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def drive(load: Load, *, bare: bool) -> Result:
    """Run one load against a provider of its own."""
    simulator = Simulator(load.provider, load.limits, latency_s=LATENCY_S)
    with serving(simulator) as url:
        caller = Caller(load, url, bare=bare)
        caller.run()
        result = caller.result
        result.refused = simulator.stats["by_status"].get("429", 0)
    return dataclasses.replace(result, answered=list(result.answered))


def row(load: Load, result: Result, *, bare: bool) -> str:
    """Return one line of the table."""
    name = "bare SDK" if bare else "ratekeeper" + (load.told or " (as preset)")
    binds = "tokens" if load.tokens else "requests"
    shares = " | ".join(f"{share:.1%}" for share in result.windows(load))
    counts = f"{len(result.answered)} | {shares} | {result.refused} | {result.errors}"
    return f"| {load.client} | {name} | {binds} | {counts} |"


def missed(load: Load, result: Result) -> list[str]:
    """List the bars this load does not clear."""
    bar = BAR_HARD if load.tokens else BAR
    found = [f"{load.client}: {result.refused} refusals"] if result.refused else []
    share = sum(result.windows(load)) / WINDOWS
    if share < bar:
        found.append(f"{load.client}: {share:.2%} of the quota, asked: {bar:.1%}")
    return found


def main() -> int:
    """Measure, print, and return 1 if a bar is missed."""
    print(f"{RPM} rpm + {TPM // 1000}k tokens a minute, {CALLERS} callers, {WINDOWS} x")
    print(f"{WINDOW_S:.0f} s after {WARM_S:.0f} s; 429s and errors of the whole run\n")
    print("| client | in front | what binds | answered | 1st | 2nd | 429s | errors |")
    print("|---|---|---|---:|---:|---:|---:|---:|", flush=True)
    wrong: list[str] = []
    spawn = multiprocessing.get_context("spawn")
    for bare in (False, True):
        with concurrent.futures.ProcessPoolExecutor(
            len(LOADS), mp_context=spawn
        ) as pool:
            futures = [pool.submit(drive, load, bare=bare) for load in LOADS]
            for load, future in zip(LOADS, futures, strict=True):
                result = future.result()
                print(row(load, result, bare=bare), flush=True)
                wrong += [] if bare else missed(load, result)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in KEY]
    print(f"\n{', '.join(versions)}")
    print(f"bars: {'MISSED' if wrong else 'all cleared'}", *wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
