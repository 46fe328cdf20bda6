"""Callers that leave by the thousand: each frees what it had, and each is counted."""

from __future__ import annotations

import asyncio
import collections
import time
from pathlib import Path

import pytest

from ratekeeper.gateway.observer import Done, Observer
from tests.faults import played
from tests.faults.sizes import allow_files, say, scenario, size
from tests.gateway import gates
from tests.gateway.gates import Gate, account, client_key, gate

EACH = size(200, 1000)  # of every kind
AT_ONCE = 100
AT_MOST_S = 0.25  # from the caller's end to the provider's
KINDS = {
    # what the provider does, whether the call streams, and what the caller sees of it
    "in a plain call": ("silent", False, 0),
    "before the head": ("silent", True, 0),
    "before the first token": ("head", True, 0),
    "amid the stream": ("events 5", True, 5),
    "just before the usage": ("events 40", True, 40),
}


class Hears(Observer):
    """Keeps what became of every call."""

    def __init__(self) -> None:
        self.all: list[Done] = []

    @property
    def hears_all(self) -> bool:
        return True

    def done(self, done: Done) -> None:
        self.all.append(done)


async def come(
    it: Gate, provider: played.Provider, call: str, kind: str
) -> asyncio.StreamWriter:
    """Call, and read so many events; return what is hung up by."""
    play, stream, events = KINDS[kind]
    reader, writer = await played.dial(it.url)
    writer.write(played.request(call, play, stream=stream))
    seen = b""
    while seen.count(b"data:") < events or (play == "head" and not seen):
        seen += await reader.read(1 << 16)
    await played.until(lambda: call in provider.came)
    return writer


def leave(writer: asyncio.StreamWriter) -> float:
    """Hang up; return when."""
    writer.close()
    return time.monotonic()


async def crowd(it: Gate, provider: played.Provider, kind: str) -> list[float]:
    """Return how late the provider noticed, of each of them."""
    took = []
    for first in range(0, EACH, AT_ONCE):
        names = [f"{kind} {n}" for n in range(first, first + AT_ONCE)]
        here = await asyncio.gather(*(come(it, provider, n, kind) for n in names))
        left = [leave(writer) for writer in here]
        await played.until(lambda: all(n in provider.lost for n in names))  # noqa: B023
        took += [provider.lost[n] - at for n, at in zip(names, left, strict=True)]
    return took


@pytest.mark.slow
@scenario(300)
@pytest.mark.parametrize("kind", KINDS)
def test_whoever_leaves_frees_all_within_a_quarter_second_and_is_counted(
    tmp_path: Path, kind: str
) -> None:
    allow_files()
    heard = Hears()

    async def play() -> tuple[list[float], dict[str, int]]:
        async with played.provider() as provider:
            keys = [client_key(limits=["1M rpm", "1B tpm", "1000 concurrent"])]
            config = gates.config(
                tmp_path, {"openai": account(provider.url, "1M rpm", "1B tpm")}, keys
            )
            with gate(config, observer=lambda _: heard) as it:
                took = await crowd(it, provider, kind)
                await played.until(lambda: it.gateway.open_calls == 0)
                assert 0 == it.gateway.held.bytes
                return took, used(it)

    took, counted = asyncio.run(play())
    spent = collections.Counter((d.input_tokens or 0) > 0 for d in heard.all)
    _, _, events = KINDS[kind]
    say(f"{EACH} left {kind}: seen upstream within {max(took) * 1000:.0f} ms")

    assert max(took) <= AT_MOST_S
    assert 0 == counted["slots"]
    assert EACH == counted["requests"]
    assert {True: EACH} == spent
    assert all((d.output_tokens or 0) >= max(events, 1) for d in heard.all)
    assert counted["tokens"] >= sum(d.output_tokens or 0 for d in heard.all)


def used(it: Gate) -> dict[str, int]:
    """Return what the caller's limits count."""
    caller = it.gateway.roster.caller(gates.SECRET, 0)
    assert caller is not None
    rows = it.gateway.store.status(*caller.targets[0])
    names = ("requests", "tokens", "slots")
    return {name: int(row.used) for name, row in zip(names, rows, strict=True)}
