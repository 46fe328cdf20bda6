"""Callers that leave: nothing of them stays behind, and what flowed is paid for."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gateway import gates
from tests.gateway.gates import Behind, Gate, account, behind, client_key, gate

LIMITS = ["100k rpm", "100M tpm", "40 concurrent"]
AT_MOST_S = 0.25
MANY = 25


@pytest.fixture
def upstream() -> Iterator[Behind]:
    with behind() as it:
        yield it


@pytest.fixture
def it(tmp_path: Path, upstream: Behind) -> Iterator[Gate]:
    keys = [client_key(limits=LIMITS, max_wait="60s")]
    with gate(gates.config(tmp_path, {"openai": account(upstream.url)}, keys)) as it:
        yield it


def _ask(it: Gate, cue: str, *, stream: bool) -> socket.socket:
    """Send a call over a bare socket, and leave its answer unread."""
    host, _, port = it.url.removeprefix("http://").partition(":")
    body = json.dumps(
        {
            "model": "gpt-4o",
            "max_tokens": 400,
            "stream": stream,
            "messages": gates.MESSAGES,
        }
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n"
        f"authorization: Bearer {gates.SECRET}\r\nx-simulate: {cue}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    caller = socket.create_connection((host, int(port)))
    caller.sendall(head.encode() + body)
    return caller


def _until(done: Callable[[], bool], within_s: float = 5.0) -> float:
    begun = time.monotonic()
    while not done() and time.monotonic() - begun < within_s:
        time.sleep(0.002)
    return time.monotonic() - begun


def _used(it: Gate) -> dict[str, int]:
    caller = it.gateway.roster.caller(gates.SECRET, 0)
    assert caller is not None
    scope, key = caller.targets[0]
    names = ("requests", "tokens", "slots")
    rows = it.gateway.store.status(scope, key)
    return {name: int(row.used) for name, row in zip(names, rows, strict=True)}


@pytest.mark.parametrize(
    ("cue", "stream", "parts"),
    [
        ("latency=5", True, 0),  # before the first token
        ("latency=5", False, 0),  # in a plain call
        ("pace=0.5", True, 1),  # amid the stream
    ],
)
def test_a_caller_that_leaves_leaves_nothing_behind(
    it: Gate, upstream: Behind, cue: str, stream: bool, parts: int
) -> None:
    callers = [_ask(it, cue, stream=stream) for _ in range(MANY)]
    _until(lambda: upstream.requests == MANY)
    for caller in callers:
        for _ in range(parts):
            assert caller.recv(1 << 16)
    closed = upstream.simulator.stats["client_closed"]
    for caller in callers:
        caller.close()
    took = [
        _until(lambda: it.gateway.open_calls == 0),
        _until(lambda: upstream.simulator.stats["client_closed"] == closed + MANY),
    ]
    used = _used(it)

    assert sum(took) <= AT_MOST_S * 2  # every test may share the machine
    assert 0 == it.gateway.held.bytes
    assert 0 == used["slots"]
    assert MANY == used["requests"]
    assert used["tokens"] >= MANY  # never 0 after tokens flowed, nor before


def test_a_caller_that_leaves_amid_its_answer_pays_for_what_flowed(it: Gate) -> None:
    caller = _ask(it, "pace=0.02", stream=True)
    seen = b""
    while seen.count(b"data:") < 10:
        seen += caller.recv(1 << 16)
    caller.close()
    _until(lambda: it.gateway.open_calls == 0)

    assert 10 <= _used(it)["tokens"] < 200  # not the 400 that were held


def test_a_caller_that_leaves_the_line_frees_its_place(
    tmp_path: Path, upstream: Behind
) -> None:
    keys = [client_key(limits=["1 concurrent"], max_wait="60s")]
    config = gates.config(tmp_path, {"openai": account(upstream.url)}, keys)
    with gate(config) as it:
        first = _ask(it, "latency=1", stream=False)
        _until(lambda: upstream.requests == 1)
        waiting = [_ask(it, "latency=0", stream=False) for _ in range(10)]
        _until(lambda: it.gateway.open_calls == 11)
        for caller in waiting[:9]:
            caller.close()
        took = _until(lambda: it.gateway.open_calls == 2)
        answers = [first.recv(1 << 16), waiting[9].recv(1 << 16)]
        for caller in (first, waiting[9]):
            caller.close()

    assert took <= AT_MOST_S * 2
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    assert 2 == upstream.requests


def test_an_answer_that_breaks_off_upstream_is_not_made_whole(
    it: Gate, upstream: Behind
) -> None:
    caller = _ask(it, "cut=3", stream=True)
    seen = b""
    while part := caller.recv(1 << 16):
        seen += part
    caller.close()

    assert b"data:" in seen
    assert not seen.endswith(b"0\r\n\r\n")
    assert 0 == it.gateway.open_calls
