"""The clock is turned under a running gateway, and calls are cancelled at every step."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from ratekeeper.testing import ManualClock
from tests.faults import played
from tests.faults.sizes import size
from tests.gateway import gates
from tests.gateway.gates import Gate, account, behind, client_key, gate

HOUR, DAY = 3600.0, 86400.0
LEFT = size(300, 3000)  # calls whose callers leave at any moment
KINDS = (
    ("plain", False),
    ("silent", False),
    ("silent", True),
    ("head", True),
    ("stream 5 0.002", True),
    ("events 20", True),
)


def statuses(it: Gate, many: int) -> list[int]:
    with it.client() as client:
        return [it.chat(client).status_code for _ in range(many)]


@pytest.mark.parametrize("limit", ["3 requests/day", "3 requests/day resets 00:00"])
def test_a_clock_that_is_turned_back_gives_no_second_quota(
    tmp_path: Path, limit: str
) -> None:
    clock = ManualClock()
    keys = [client_key(limits=[limit], max_wait="0s")]
    with behind() as upstream:
        config = gates.config(tmp_path, {"openai": account(upstream.url)}, keys)
        with gate(config, clock=clock) as it:
            before = statuses(it, 2)
            clock.advance(-HOUR)
            back = statuses(it, 2)
            clock.advance(-30 * DAY)
            further = statuses(it, 1)

    assert [200, 200] == before
    assert [200, 429] == back
    assert [429] == further


def test_a_clock_that_is_turned_on_gives_one_window_and_locks_nobody_out(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    keys = [client_key(limits=["3 requests/day"], max_wait="0s")]
    with behind() as upstream:
        config = gates.config(tmp_path, {"openai": account(upstream.url)}, keys)
        with gate(config, clock=clock) as it:
            before = statuses(it, 4)
            clock.advance(DAY + 600)
            after = statuses(it, 4)
            clock.advance(-DAY)
            back = statuses(it, 1)
            clock.advance(DAY + 600)
            late = statuses(it, 1)

    assert [200, 200, 200, 429] == before
    assert [200, 200, 200, 429] == after
    assert [429] == back
    assert [200] == late


def test_a_key_that_has_expired_stays_so_when_the_clock_goes_back(
    tmp_path: Path,
) -> None:
    clock = ManualClock()  # it begins in January 2027
    keys = [client_key(expires="2027-01-20")]
    with behind() as upstream:
        config = gates.config(tmp_path, {"openai": account(upstream.url)}, keys)
        with gate(config, clock=clock) as it:
            before = statuses(it, 1)
            clock.advance(10 * DAY)
            expired = statuses(it, 1)
            clock.advance(-10 * DAY)
            back = statuses(it, 1)

    assert ([200], [401], [401]) == (before, expired, back)


def used(it: Gate) -> int:
    """Return how many slots the caller's limits count as taken."""
    caller = it.gateway.roster.caller(gates.SECRET, 0)
    assert caller is not None
    return int(it.gateway.store.status(*caller.targets[0])[-1].used)


async def left(it: Gate, n: int, draw: random.Random) -> None:
    """Begin a call and hang up, wherever it stands by then."""
    play, stream = draw.choice(KINDS)
    sent = played.request(str(n), play, stream=stream)
    if draw.random() < 0.2:
        sent = sent[: draw.randrange(len(sent))]
    _, writer = await played.dial(it.url)
    writer.write(sent)
    await asyncio.sleep(draw.choice((0.0, draw.uniform(0, 0.02))))
    writer.transport.abort()


@pytest.mark.slow
@pytest.mark.timeout(size(30, 120))
def test_wherever_its_caller_leaves_a_call_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    limits = ["1M rpm", "1B tpm", "$1000/day", "20 concurrent"]
    draw = random.Random(11)

    async def play() -> tuple[int, int, int]:
        async with played.provider() as provider:
            keys = [client_key(limits=limits, max_wait="30s")]
            config = gates.config(tmp_path, {"openai": account(provider.url)}, keys)
            with gate(config) as it:
                for first in range(0, LEFT, 50):
                    calls = range(first, first + 50)
                    await asyncio.gather(*(left(it, n, draw) for n in calls))
                await played.until(lambda: it.gateway.open_calls == 0)
                answered = await asyncio.to_thread(after, it)
                await played.until(lambda: used(it) == 0)
                assert 200 == answered
                return it.gateway.open_calls, used(it), it.gateway.held.bytes

    assert (0, 0, 0) == asyncio.run(play())


def after(it: Gate) -> int:
    """Call as a caller does who stays."""
    with it.client() as client:
        client.headers.update({"x-call": "last", "x-play": "plain"})
        return it.chat(client).status_code
