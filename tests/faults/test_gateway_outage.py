"""Providers that are down, and ways to them: no more is sent, and by no other way."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from pathlib import Path

import httpx2
import pytest

from tests.faults.scripted import Asked, scripted
from tests.faults.sizes import say, size
from tests.gateway import gates
from tests.gateway.gates import Gate, account, behind, gate

CALLS = size(600, 3000)
FULL_BUDGET = 35  # retries that a full budget pays for
AT_ONCE = 20
ANSWER = b'{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 5}}'


async def ask(it: Gate, calls: int) -> Counter[int]:
    """Call so often, some at once; return the statuses."""
    left = iter(range(calls))
    found: Counter[int] = Counter()
    headers = {"authorization": f"Bearer {gates.SECRET}"}
    body = {"model": "gpt-4o", "max_tokens": 5, "messages": gates.MESSAGES}

    async def caller() -> None:
        for _ in left:
            answer = await client.post("/v1/chat/completions", json=body)
            found[answer.status_code] += 1

    async with httpx2.AsyncClient(
        base_url=it.url, headers=headers, timeout=15
    ) as client:
        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return found


@pytest.mark.slow
def test_an_outage_is_met_with_no_more_than_its_calls(tmp_path: Path) -> None:
    with behind("openai", "status=500 @ 1") as down:
        accounts = [account(down.url, name=name) for name in ("one", "two", "three")]
        config = gates.config(
            tmp_path, {"openai": {"accounts": accounts}}, max_wait="0s"
        )
        with gate(config) as it:
            found = asyncio.run(ask(it, CALLS))
        attempts = down.requests
    say(f"{CALLS} calls of an outage: {attempts} attempts, {dict(found)}")

    assert CALLS == found[500] + found[503]
    assert attempts <= found[500] + FULL_BUDGET
    assert attempts <= CALLS * 1.1


@pytest.mark.slow
def test_limits_that_are_learned_draw_no_refusals(tmp_path: Path) -> None:
    with behind("openai", limits=["600 rpm", "1B tpm"]) as upstream:
        said = {**account(upstream.url), "limits": "learned"}
        config = gates.config(tmp_path, {"openai": said}, max_wait="15s")
        with gate(config) as it:
            found = asyncio.run(ask(it, 100))
        refused = upstream.simulator.stats["by_status"].get("429", 0)
    say(f"learned limits: {dict(found)}, {refused} refusals by the provider")

    assert {200: 100} == found
    assert refused <= 1


def proxied(sock: socket.socket, asked: Asked) -> bool:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    sock.sendall(head + b"content-length: %d\r\n\r\n" % len(ANSWER) + ANSWER)
    return True


def test_a_proxy_is_for_the_provider_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        scripted(proxied) as straight,
        scripted(proxied) as proxy,
        scripted(proxied) as trap,
    ):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, trap.url)
        beyond = "http://provider.invalid/v1"
        said = proxy.url.removesuffix("/v1").replace("//", "//user:pass-canary@")
        config = gates.config(
            tmp_path,
            {
                "openai": {"accounts": [account(beyond)], "proxy": said},
                "holysheep": account(straight.url),
            },
        )
        with (
            gate(config) as it,
            httpx2.Client(
                base_url=it.url,
                headers={"authorization": f"Bearer {gates.SECRET}"},
                trust_env=False,
            ) as client,
        ):
            statuses = [
                client.post(
                    f"/p/{name}/v1/chat/completions",
                    json={"model": "gpt-4o", "messages": gates.MESSAGES},
                ).status_code
                for name in ("openai", "holysheep")
            ]
            shown = f"{it.gateway.roster.upstreams}{config.providers['openai']}"

    assert [200, 200] == statuses
    assert (1, 1, 0) == (proxy.connections, straight.connections, trap.connections)
    assert b"POST http://provider.invalid/v1/chat/completions" in proxy.asked[0].head
    assert b"authorization" in straight.asked[0].names
    assert b"proxy-authorization" not in straight.asked[0].names
    assert gates.UPSTREAM_KEY not in shown
    assert "pass-canary" not in shown
