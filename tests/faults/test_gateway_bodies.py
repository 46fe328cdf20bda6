"""Bodies that wait: they weigh their bytes, are bounded in all, and crowd nobody out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gateway import gates
from tests.gateway.gates import Behind, Gate, account, behind, client_key, gate
from tests.gateway.stand_in import Caller

OTHER = "rk-" + "o" * 43
KEYS = [
    client_key(limits=["1 concurrent"], max_wait="60s"),
    client_key("other", OTHER),
]
MIB = 1 << 20


@pytest.fixture
def upstream() -> Iterator[Behind]:
    with behind() as it:
        yield it


def body(size: int, member: str = '"x"') -> bytes:
    """Return a chat whose metadata are so many bytes of members."""
    asked = {"model": "gpt-4o", "max_tokens": 5, "messages": gates.MESSAGES}
    filler = ",".join([member] * (size // (len(member) + 1)))
    return json.dumps(asked).encode()[:-1] + b', "user": [' + filler.encode() + b"]}"


def send(it: Gate, data: bytes, cue: str = "latency=0", path: str = "/v1") -> Caller:
    head = (
        f"POST {path}/chat/completions HTTP/1.1\r\nhost: gateway\r\n"
        f"authorization: Bearer {gates.SECRET}\r\nx-simulate: {cue}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return Caller(it.url).send(head.encode() + data)


def until(is_so: Callable[[], bool]) -> bool:
    end = time.monotonic() + 5
    while not is_so() and time.monotonic() < end:
        time.sleep(0.005)
    return is_so()


def test_a_body_that_waits_weighs_its_bytes_and_not_what_they_say(
    tmp_path: Path, upstream: Behind
) -> None:
    """Each member is 17 bytes, and 240 in objects where it is kept as it was read."""
    config = gates.config(tmp_path, {"openai": account(upstream.url)}, KEYS)
    with gate(config) as it:
        callers = [send(it, body(100), "latency=5")]
        assert until(lambda: upstream.requests == 1)
        before = sys.getallocatedblocks()
        callers += [send(it, body(MIB, '{"x":"some text"}')) for _ in range(8)]
        assert until(lambda: it.gateway.held.bytes > 8 * MIB - 1000)
        time.sleep(0.1)  # all of them stand in line
        grown = sys.getallocatedblocks() - before
        for caller in callers:
            caller.socket.close()

    assert grown < 20_000  # objects; as read they are a million


def test_whoever_comes_too_many_is_told_and_those_who_wait_are_served(
    tmp_path: Path, upstream: Behind
) -> None:
    providers = {"openai": account(upstream.url)}
    config = gates.config(tmp_path, providers, KEYS, max_body="1MiB", max_held="4MiB")
    large = body(MIB - 1000)
    with gate(config) as it:
        callers = [send(it, body(100), "latency=1")]
        assert until(lambda: upstream.requests == 1)
        callers += [send(it, large) for _ in range(2)]
        assert until(lambda: it.gateway.held.bytes > 2 * len(large))
        with send(it, large) as late, it.client(OTHER) as other:
            refused = late.read(lambda data: data.endswith(b"}"))
            others = it.chat(other).status_code
        answers = [caller.socket.recv(1 << 16)[:12] for caller in callers]
        for caller in callers:
            caller.socket.close()
        assert until(lambda: it.gateway.open_calls == 0)
        held = it.gateway.held.bytes

    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in refused
    assert b'"type":"server_error"' in refused
    assert 200 == others  # one caller's crowd is nobody else's
    assert [b"HTTP/1.1 200"] * 3 == answers
    assert 0 == held


def test_a_crowd_is_told_in_the_words_of_the_callers_api(
    tmp_path: Path,
) -> None:
    with behind("anthropic") as upstream:
        config = gates.config(
            tmp_path,
            {"anthropic": account(upstream.url)},
            KEYS,
            max_body="1MiB",
            max_held="1MiB",
        )
        with gate(config) as it, it.client() as client:
            it.gateway.held.take(MIB, "somebody")
            told = client.post(
                "/anthropic/v1/messages",
                json={"model": "claude-sonnet-4", "max_tokens": 5, "messages": []},
            )
            it.gateway.held.give(MIB, "somebody")

    assert 503 == told.status_code
    assert "error" == told.json()["type"]
    assert "too many large requests are waiting" in told.json()["error"]["message"]


def test_a_body_is_read_again_for_another_try_by_another_name(
    tmp_path: Path, upstream: Behind
) -> None:
    """What is not kept while a call waits must be there for its next attempt."""
    with behind("openai", "status=500 @ 1") as failing:
        config = gates.config(
            tmp_path,
            {"openai": account(failing.url), "holysheep": account(upstream.url)},
            [client_key(limits=["$1/day"])],
            fallbacks={"mine": ["openai/gpt-4o", "holysheep/gpt-4o-mini"]},
        )
        with gate(config) as it, it.client() as client:
            answer = it.chat(client, model="mine")

    assert 200 == answer.status_code
    assert "gpt-4o-mini" in answer.json()["model"]
