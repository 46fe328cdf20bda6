"""kill -9, again and again: the file counts all that was sent, and lets no more go."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path

import pytest

from tests.cli.running import Served, serve
from tests.faults import played
from tests.faults.sizes import say, size
from tests.gateway import gates

KILLS = size(5, 20)
CALLERS = 8
OUT = 100  # tokens of every answer, which is its bound as well
# What a call costs that is answered: 9 tokens at $2.50 a million, and 100 at $10.
COST = played.PUT * 2_500 + OUT * 10_000  # billionths
CALLS = size(50, 250)  # that a budget is for
BUDGETS = {
    # a limit of the key, how much that is, and what one call takes of it at least
    "money": (f"${CALLS / 1000}/day", CALLS * 1_000_000, COST),
    "requests": (f"{CALLS} requests/day", CALLS, 1),
    "tokens": (f"{CALLS * 100} tokens/day", CALLS * 100, OUT + played.PUT),
}
PLAYS = ("plain", "plain", "silent", "stream 100 0.0005")
CONFIG = """\
providers:
  openai:
    base_url: {url}
    accounts: [{{api_key: "env:UPSTREAM_KEY", limits: [1M rpm, 1B tpm]}}]
client_keys:
  - {{name: app, hash: "{hash}", limits: [{limit}], max_wait: 0s}}
prices: {{gpt-4o: {{input: 2.50, output: 10, max_output: 400}}}}
"""


async def call(url: str, play: str) -> bytes:
    """Call once, until it is answered or the gateway is gone; return what came.

    Nobody leaves amid a stream: that would be paid for by what flowed.
    """
    try:
        reader, writer = await played.dial(url)
    except OSError:
        return b""
    said = {"max_tokens": OUT, "stream": play.startswith("stream")}
    writer.write(played.request("x", play, **said))
    seen = b""
    try:
        async with asyncio.timeout(0.2 if play == "silent" else 10):
            while not seen.endswith((b"}", played.LAST)):
                part = await reader.read(1 << 16)
                if not part:
                    break
                seen += part
    except (OSError, TimeoutError):
        pass
    finally:
        writer.transport.abort()
    return seen


async def load(url: str, draw: random.Random) -> None:
    """Have callers ask until they are cancelled."""

    async def caller(seed: int) -> None:
        mine = random.Random(seed)
        while True:
            await call(url, mine.choice(PLAYS))
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(caller(draw.getrandbits(32)))


def counted(path: Path) -> int:
    """Return what the limits of a file count."""
    connection = sqlite3.connect(path)
    try:
        (amount,) = connection.execute("SELECT sum(amount) FROM used").fetchone()
    finally:
        connection.close()
    return int(amount or 0)


async def killed(served: Served, draw: random.Random) -> None:
    """Have it called, and kill it in the middle."""
    calls = asyncio.create_task(load(served.facts["url"], draw))
    await asyncio.sleep(draw.uniform(0.05, 0.5))
    served.process.kill()
    await asyncio.to_thread(served.process.wait)
    calls.cancel()
    await asyncio.gather(calls, return_exceptions=True)


async def used_up(url: str) -> None:
    """Call until the budget lets no more go."""
    for _ in range(CALLS + 1):
        if b" 429 " in await call(url, "plain"):
            return
    raise AssertionError("more calls were let go than the budget holds")


@pytest.mark.slow
@pytest.mark.timeout(size(40, 150))
@pytest.mark.parametrize("budget", BUDGETS)
def test_the_file_counts_all_that_was_sent_and_no_budget_is_passed(
    tmp_path: Path, budget: str
) -> None:
    limit, amount, least = BUDGETS[budget]
    draw = random.Random(7)

    async def scenario() -> list[tuple[int, int]]:
        seen = []
        async with played.provider() as provider:
            terms = {"url": provider.url, "hash": gates.digest(), "limit": limit}
            (tmp_path / "ratekeeper.yaml").write_text(CONFIG.format(**terms))
            for _ in range(KILLS):
                with serve(tmp_path, **gates.ENVIRON) as served:
                    await killed(served, draw)
                await asyncio.sleep(0.05)
                sent = len(provider.asked)
                seen.append((sent, counted(tmp_path / "ratekeeper.db")))
            with serve(tmp_path, **gates.ENVIRON) as served:
                await used_up(served.facts["url"])
                served.process.kill()
            seen.append((len(provider.asked), counted(tmp_path / "ratekeeper.db")))
        return seen

    seen = asyncio.run(scenario())
    say(f"{budget}: sent and counted after each kill: {seen}")

    assert seen[-1][0] > 2 * CALLERS
    assert [] == [(sent, found) for sent, found in seen if found < sent * least]
    assert amount * 0.9 <= seen[-1][1] <= amount
