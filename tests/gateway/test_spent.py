"""What the ledger says was spent is what the budget counts, however a call has ended."""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.scripted import Asked, scripted
from tests.gateway import gates
from tests.gateway.gates import account, behind, client_key, gate

PRICES = {**gates.PRICES, "*/images/generations": {"request": "0.04"}}
ENDINGS = {
    # what the provider does, whether the call streams, and what it is answered
    "an answer": ("latency=0", False, 200),
    "a stream": ("latency=0", True, 200),
    "an answer that breaks off": ("cut=3", False, 502),
    "a stream that breaks off": ("cut=3", True, 200),
    "no answer": ("drop", False, 502),
    "a failure": ("status=500", False, 500),
    "an overload": ("status=503", False, 503),
    "a refusal for ever": ("status=400", False, 400),
}


def kept(folder: Path) -> tuple[int, int, int]:
    """Return the requests, the output and the cost that the ledger has."""
    connection = sqlite3.connect(folder / "ratekeeper.db")
    try:
        found = connection.execute(
            "SELECT coalesce(sum(requests), 0), coalesce(sum(output_tokens), 0), "
            "coalesce(sum(cost_nano), 0) FROM spend"
        ).fetchone()
    finally:
        connection.close()
    return int(found[0]), int(found[1]), int(found[2])


def until(is_so: Callable[[], bool]) -> None:
    """Wait for a state that nobody announces."""
    end = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


def budgeted(folder: Path) -> int:
    """Return what the budget counts, in billionths."""
    connection = sqlite3.connect(folder / "ratekeeper.db")
    try:
        (found,) = connection.execute("SELECT sum(amount) FROM used").fetchone()
    finally:
        connection.close()
    return int(found)


@pytest.mark.parametrize(("cue", "stream", "status"), ENDINGS.values(), ids=ENDINGS)
def test_the_ledger_and_the_budget_agree(
    tmp_path: Path, cue: str, stream: bool, status: int
) -> None:
    keys = [client_key(limits=["$100/day"], max_wait="0s")]
    with behind() as upstream:
        config = gates.config(tmp_path, {"openai": account(upstream.url)}, keys)
        with gate(config) as it, it.client() as client:
            client.headers["x-simulate"] = cue
            body = {"model": "gpt-4o", "max_tokens": 50, "messages": gates.MESSAGES}
            with client.stream(
                "POST", "/v1/chat/completions", json={**body, "stream": stream}
            ) as answer:
                seen = answer.status_code
                if cue != "cut=3":
                    answer.read()
    requests, output, cost = kept(tmp_path)

    assert status == seen
    assert budgeted(tmp_path) == cost
    assert (requests, output) == (0, 0) if status == 400 else requests == 1


def test_a_call_that_was_lost_costs_what_was_held_for_it(tmp_path: Path) -> None:
    keys = [client_key(limits=["$100/day"], max_wait="0s")]
    with behind() as upstream:
        config = gates.config(tmp_path, {"openai": account(upstream.url)}, keys)
        with gate(config) as it, it.client() as client:
            client.headers["x-simulate"] = "drop"
            it.chat(client, max_tokens=1000)
    requests, output, cost = kept(tmp_path)

    assert (1, 1000) == (requests, output)
    assert cost >= 1000 * 10_000  # 10 dollars a million


def drawn(sock: socket.socket, asked: Asked) -> bool:
    body = b'{"data": [{"url": "https://example.com/cat.png"}]}'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    sock.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
    return True


def test_what_has_a_fee_and_no_tokens_is_in_the_ledger(tmp_path: Path) -> None:
    keys = [client_key(limits=["$100/day"], max_wait="0s")]
    with scripted(drawn) as upstream:
        config = gates.config(
            tmp_path, {"openai": account(upstream.url)}, keys, prices=PRICES
        )
        with gate(config) as it, it.client() as client:
            client.post("/v1/images/generations", json={"prompt": "a cat"})

    assert (1, 0, 40_000_000) == kept(tmp_path)
    assert 40_000_000 == budgeted(tmp_path)


def test_an_attempt_that_failed_elsewhere_is_in_the_ledger_too(tmp_path: Path) -> None:
    keys = [client_key(limits=["$100/day"], max_wait="0s")]
    with behind("openai", "status=500 @ 1") as bad, behind() as good:
        config = gates.config(
            tmp_path,
            {"openai": account(bad.url), "holysheep": account(good.url)},
            keys,
            fallbacks={"gpt-4o": ["openai/gpt-4o", "holysheep/gpt-4o"]},
        )
        with gate(config) as it, it.client() as client:
            status = it.chat(client).status_code
    requests, _, cost = kept(tmp_path)

    assert (200, 2) == (status, requests)
    assert budgeted(tmp_path) == cost


@pytest.mark.parametrize(
    ("limits", "status"), [([], 200), (["100 rpm"], 200), (["$9/day"], 403)]
)
def test_a_call_without_a_bound_is_written_down_and_never_held(
    tmp_path: Path, limits: list[str], status: int
) -> None:
    """How long its answer may get is not known; what it was, its answer tells."""
    prices = {"my-model": {"input": "2.50", "output": "10"}}
    body = {"model": "my-model", "messages": gates.MESSAGES}
    with behind() as upstream:
        providers = {"openai": account(upstream.url)}
        keys = [client_key(limits=limits)]
        config = gates.config(tmp_path, providers, keys, prices=prices)
        with gate(config) as it, it.client() as client:
            reply = client.post("/v1/chat/completions", json=body)
    _, output, cost = kept(tmp_path)

    assert status == reply.status_code
    assert (status == 200) is ("x-ratekeeper-cost" in reply.headers)
    assert (status == 200) is (cost > output > 0)


def test_a_budget_that_calls_only_hold_is_waited_for(tmp_path: Path) -> None:
    keys = [client_key(limits=["$0.02/day"], max_wait="12s")]
    with behind(latency_s=0.1) as upstream, ThreadPoolExecutor(12) as pool:
        config = gates.config(tmp_path, {"openai": account(upstream.url)}, keys)
        with gate(config) as it, it.client() as client:
            client.headers["x-simulate"] = "output=10"
            # Of which two at once fit, and which cost next to nothing.
            asked = [
                pool.submit(
                    it.chat,
                    client,
                    max_tokens=900,
                )
                for _ in range(12)
            ]
            statuses = [one.result().status_code for one in asked]

    assert [200] * 12 == statuses


def test_whoever_may_not_wait_for_a_budget_that_is_held_is_told_to_come_soon(
    tmp_path: Path,
) -> None:
    keys = [client_key(limits=["$0.02/day"], max_wait="0s")]
    with behind(latency_s=1) as upstream, ThreadPoolExecutor(2) as pool:
        config = gates.config(tmp_path, {"openai": account(upstream.url)}, keys)
        with gate(config) as it, it.client() as client:
            held = pool.submit(it.chat, client, max_tokens=1500)
            until(lambda: upstream.requests == 1)
            refused = it.chat(client, max_tokens=1500)
            first = held.result()

    assert [200, 429] == [first.status_code, refused.status_code]
    assert "1" == refused.headers["retry-after"]
    assert "x-should-retry" not in refused.headers
    assert (
        "the limit '$0.02/day' of this key is held by calls under way; "
        "try again in 1 s at the earliest"
    ) == refused.json()["error"]["message"]
