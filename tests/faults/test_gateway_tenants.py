"""Tenants side by side: one that asks for too much slows nobody but itself."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2

from tests.gateway import gates
from tests.gateway.gates import Gate, account, behind, client_key, gate

GREEDY, MODEST = "rk-" + "g" * 43, "rk-" + "m" * 43
BODY = {"model": "gpt-4o", "max_tokens": 5, "messages": gates.MESSAGES}
URL = "/v1/chat/completions"


def _client(it: Gate, key: str) -> httpx2.AsyncClient:
    headers = {"authorization": f"Bearer {key}"}
    limits = httpx2.Limits(max_connections=500)
    return httpx2.AsyncClient(
        base_url=it.url, headers=headers, timeout=30, limits=limits
    )


async def _at_rate(
    client: httpx2.AsyncClient, per_s: float, for_s: float
) -> tuple[Counter[int], list[float]]:
    statuses: Counter[int] = Counter()
    took: list[float] = []

    async def one() -> None:
        begun = time.monotonic()
        statuses[(await client.post(URL, json=BODY)).status_code] += 1
        took.append(time.monotonic() - begun)

    async with asyncio.TaskGroup() as group:
        for _ in range(int(per_s * for_s)):
            group.create_task(one())
            await asyncio.sleep(1 / per_s)
    return statuses, took


def _keys(**terms: Any) -> list[dict[str, Any]]:
    return [
        client_key("greedy", GREEDY, team="a", **terms),
        client_key("modest", MODEST, team="b", **terms),
    ]


def test_a_tenant_at_twenty_times_its_limit_slows_no_other(tmp_path: Path) -> None:
    keys = _keys(max_wait="0s", limits=["5 requests/s"])

    async def play(it: Gate) -> tuple[Counter[int], Counter[int]]:
        async with _client(it, GREEDY) as greedy, _client(it, MODEST) as modest:
            flood, calm = await asyncio.gather(
                _at_rate(greedy, 100, 3), _at_rate(modest, 4, 3)
            )
        return flood[0], calm[0]

    with behind() as upstream:
        providers = {"openai": account(upstream.url)}
        config = gates.config(tmp_path, providers, keys, teams={"a": {}, "b": {}})
        with gate(config) as it:
            begun = time.monotonic()
            flood, calm = asyncio.run(play(it))
            took = time.monotonic() - begun

    assert {200: 12} == dict(calm)
    assert 15 <= flood[200] <= 5 * (took + 1)
    assert 300 - flood[200] == flood[429]


def test_a_team_within_its_share_goes_ahead_of_one_that_floods(tmp_path: Path) -> None:
    """Both wait for one account: turns are shared between teams, not between calls."""
    keys = _keys(max_wait="30s")

    async def play(it: Gate) -> float:
        async with _client(it, GREEDY) as greedy, _client(it, MODEST) as modest:
            flood = [
                asyncio.create_task(greedy.post(URL, json=BODY)) for _ in range(60)
            ]
            await asyncio.sleep(0.5)
            begun = time.monotonic()
            assert 200 == (await modest.post(URL, json=BODY)).status_code
            took = time.monotonic() - begun
            for task in flood:
                task.cancel()
            await asyncio.gather(*flood, return_exceptions=True)
        return took

    with behind() as upstream:
        said = account(upstream.url, "20 requests/s using token-bucket burst 1")
        config = gates.config(
            tmp_path, {"openai": said}, keys, teams={"a": {}, "b": {}}
        )
        with gate(config) as it:
            took = asyncio.run(play(it))

    assert took < 1.0  # the flood before it would take 3 s


def test_weights_share_an_account_as_they_say(tmp_path: Path) -> None:
    keys = _keys(max_wait="30s")
    teams = {"a": {"weight": 1}, "b": {"weight": 3}}

    async def play(it: Gate) -> Counter[str]:
        done: Counter[str] = Counter()
        enough = asyncio.Event()

        async def one(name: str, client: httpx2.AsyncClient) -> None:
            reply = await client.post(URL, json=BODY)
            done[name] += reply.status_code == 200
            if done.total() >= 60:
                enough.set()

        async with _client(it, GREEDY) as a, _client(it, MODEST) as b:
            tasks = [
                asyncio.create_task(one(name, client))
                for name, client in (("a", a), ("b", b))
                for _ in range(100)
            ]
            await enough.wait()
            seen = Counter(done)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return seen

    with behind() as upstream:
        said = account(upstream.url, "30 requests/s using token-bucket burst 1")
        config = gates.config(tmp_path, {"openai": said}, keys, teams=teams)
        with gate(config) as it:
            seen = asyncio.run(play(it))

    assert 2.0 <= seen["b"] / seen["a"] <= 4.0


def test_classes_are_strict(tmp_path: Path) -> None:
    keys = [
        client_key("batch", GREEDY, priority="batch", max_wait="30s"),
        client_key("person", MODEST, priority="interactive", max_wait="30s"),
    ]

    async def play(it: Gate) -> float:
        async with _client(it, GREEDY) as batch, _client(it, MODEST) as person:
            flood = [asyncio.create_task(batch.post(URL, json=BODY)) for _ in range(60)]
            await asyncio.sleep(0.3)
            begun = time.monotonic()
            for _ in range(5):
                assert 200 == (await person.post(URL, json=BODY)).status_code
            took = time.monotonic() - begun
            for task in flood:
                task.cancel()
            await asyncio.gather(*flood, return_exceptions=True)
        return took

    with behind() as upstream:
        said = account(upstream.url, "20 requests/s using token-bucket burst 1")
        config = gates.config(tmp_path, {"openai": said}, keys)
        with gate(config) as it:
            took = asyncio.run(play(it))

    assert took < 1.5  # five turns of a twentieth of a second, and the answers
