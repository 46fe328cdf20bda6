"""A refusal that headers can decide: it costs next to nothing, and reads no body."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ratekeeper.core import policy
from ratekeeper.core.units import HOUR, MINUTE
from ratekeeper.testing import ManualClock
from tests.cli.running import serve
from tests.faults.sizes import say, size
from tests.gateway import gates
from tests.gateway.gates import Gate

MANY = size(500, 5000)
LOOKS = 5  # of which the best counts: other programs slow every one of them
MOST_US = 100
GIGABYTE = 1_000_000_000
KERNELS = 8 << 20  # what both sides of a connection may have under way
CONFIG = """\
providers:
  openai:
    base_url: {url}
    accounts: [{{api_key: "env:UPSTREAM_KEY", limits: [1M rpm]}}]
client_keys:
  - {{name: app, hash: "{hash}", limits: [1 request/hour, 1M tpm], max_wait: 0s}}
"""
STRANGER = "rk-" + "z" * 43
BODY = json.dumps(
    {"model": "gpt-4o", "max_tokens": 20, "messages": gates.MESSAGES}
).encode()


def head(key: str, length: int) -> bytes:
    return (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n"
        f"authorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        f"content-length: {length}\r\n\r\n"
    ).encode()


def used_us(pid: int) -> int:
    """Return how much of a processor a program has had, the kernel's part apart."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) * 10_000  # it is counted in hundredths of a second


def ask(caller: socket.socket, key: str, length: int, body: bytes = b"") -> bytes:
    """Send a head, and a body that may be less than it says; return the answer."""
    caller.sendall(head(key, length) + body)
    seen = b""
    while b"\r\n\r\n" not in seen or not seen.endswith(b"}"):
        seen += caller.recv(65536)
    return seen


def dial(url: str) -> socket.socket:
    """Connect to a gateway."""
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize(("key", "status"), [(STRANGER, 401), (gates.SECRET, 429)])
def test_a_refusal_takes_a_tenth_of_a_millisecond(
    tmp_path: Path, key: str, status: int
) -> None:
    """That of an unknown key, and that of one which has used up its requests."""
    told = b"HTTP/1.1 %d " % status
    with gates.behind() as upstream:
        text = CONFIG.format(hash=gates.digest(), url=upstream.url)
        (tmp_path / "ratekeeper.yaml").write_text(text)
        with serve(tmp_path, **gates.ENVIRON) as served:
            took = []
            with dial(served.facts["url"]) as caller:
                for body in (BODY, BODY):  # the first is let through
                    ask(caller, gates.SECRET, len(body), body)
                for _ in range(LOOKS):
                    before = used_us(served.process.pid)
                    for _ in range(MANY):
                        assert ask(caller, key, 0).startswith(told)
                    took.append((used_us(served.process.pid) - before) / MANY)
    say(f"{status}: refused in {min(took):.0f} us")

    assert min(took) <= MOST_US


@pytest.mark.parametrize(
    ("key", "told"), [(STRANGER, b"HTTP/1.1 401 "), (gates.SECRET, b"HTTP/1.1 413 ")]
)
def test_nothing_is_read_of_a_gigabyte(tmp_path: Path, key: str, told: bytes) -> None:
    config = gates.config(tmp_path, {"openai": gates.account("http://127.0.0.1:1/v1")})
    with gates.gate(config) as it:
        answer, sent = announced(it, key)
        held = it.gateway.held.bytes

    assert answer.startswith(told)
    assert sent <= KERNELS
    assert 0 == held


def announced(it: Gate, key: str = gates.SECRET) -> tuple[bytes, int]:
    """Announce a gigabyte; return the answer, and how much could be sent after it."""
    sent = 0
    with dial(it.url) as caller:
        answer = ask(caller, key, GIGABYTE)
        caller.settimeout(0.5)
        with contextlib.suppress(OSError):
            while sent < 64 << 20:
                sent += caller.send(b"x" * (1 << 16))
    return answer, sent


@contextlib.contextmanager
def gate(
    tmp_path: Path, *limits: Any, clock: ManualClock | None = None, **said: Any
) -> Iterator[Gate]:
    """Run a gateway for a key with these limits."""
    keys = [gates.client_key(limits=list(limits), **{"max_wait": "0s", **said})]
    with gates.behind() as upstream:
        providers = {"openai": gates.account(upstream.url)}
        config = gates.config(tmp_path, providers, keys)
        with gates.gate(config, clock=clock) as it:
            yield it


def statuses(it: Gate, many: int, secret: str = gates.SECRET) -> list[int]:
    with it.client(secret) as client:
        return [it.chat(client).status_code for _ in range(many)]


def told_us(answer: bytes) -> int:
    return int(answer.partition(b"retry-after-ms: ")[2].partition(b"\r")[0]) * 1000


@pytest.mark.parametrize("wait", ["0s", "20s"])
def test_nothing_is_read_of_a_call_beyond_the_requests_of_its_key(
    tmp_path: Path, wait: str
) -> None:
    """It cannot make it within its wait, whatever it asks."""
    clock = ManualClock()
    with gate(tmp_path, "2 requests/hour", clock=clock, max_wait=wait) as it:
        before = statuses(it, 3)
        answer, sent = announced(it)
        held = it.gateway.held.bytes

    assert [200, 200, 429] == before
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b'"code":"rate_limit_exceeded"' in answer
    assert b"\r\nconnection: close\r\n" in answer
    assert HOUR == told_us(answer)
    assert sent <= KERNELS
    assert 0 == held


def test_nothing_is_read_of_a_call_beyond_the_requests_of_its_team(
    tmp_path: Path,
) -> None:
    other = "rk-" + "o" * 43
    keys = [
        gates.client_key(team="a"),
        gates.client_key("other", other, team="a"),
    ]
    teams = {"a": {"limits": ["2 requests/hour"], "max_wait": "0s"}}
    with gates.behind() as upstream:
        providers = {"openai": gates.account(upstream.url)}
        config = gates.config(tmp_path, providers, keys, teams=teams)
        with gates.gate(config) as it:
            before = [*statuses(it, 3), *statuses(it, 1, other)]
            answer, sent = announced(it, other)

    assert [200, 200, 429, 429] == before
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert sent <= KERNELS


def test_nothing_is_read_of_a_call_beyond_the_calls_at_once(tmp_path: Path) -> None:
    begun, end = threading.Event(), threading.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        del scope
        while (await receive())["more_body"]:
            pass
        begun.set()
        await asyncio.to_thread(end.wait)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    keys = [gates.client_key(limits=["1 concurrent"], max_wait="0s")]
    first: list[int] = []
    with gates.asgi(slow) as url:
        config = gates.config(tmp_path, {"openai": gates.account(url)}, keys)
        with gates.gate(config) as it:
            holder = threading.Thread(target=lambda: first.extend(statuses(it, 1)))
            holder.start()
            begun.wait(10)
            refused = statuses(it, 1)
            answer, sent = announced(it)
            end.set()
            holder.join()
            after = statuses(it, 1)

    assert [[200], [429], [200]] == [first, refused, after]
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"at the earliest" in answer
    assert sent <= KERNELS


@pytest.mark.parametrize("length", [len(BODY), 1 << 20])
def test_a_refusal_comes_before_the_body_and_the_connection_is_kept(
    tmp_path: Path, length: int
) -> None:
    with gate(tmp_path, "1 request/hour") as it, dial(it.url) as caller:
        answers = [ask(caller, gates.SECRET, len(BODY), BODY) for _ in range(2)]
        for _ in range(3):
            answers.append(ask(caller, gates.SECRET, length))
            caller.sendall(b"x" * length)
        held = it.gateway.held.bytes

    assert [b"200", *[b"429"] * 4] == [one[9:12] for one in answers]
    assert 0 == held


def test_clients_that_send_their_whole_body_first_see_the_refusal(
    tmp_path: Path,
) -> None:
    """More of it than the kernel holds: cut off, they would see no answer at all."""
    body, sent = b"x" * (16 << 20), {"content-type": "application/json"}
    chunks = [body[:65536]] * 256

    async def asked(url: str, headers: httpx2.Headers) -> list[int]:
        async def stream() -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk

        async with httpx2.AsyncClient(base_url=url, headers=headers) as client:
            replies = [
                await client.post("/v1/chat/completions", content=one, headers=sent)
                for one in (body, stream(), body)
            ]
        return [one.status_code for one in replies]

    with gate(tmp_path, "1 request/hour") as it, it.client() as client:
        before = statuses(it, 2)
        reply = client.post("/v1/chat/completions", content=body, headers=sent)
        found = asyncio.run(asked(it.url, client.headers))

    assert [200, 429] == before
    assert 429 == reply.status_code
    assert [429, 429, 429] == found


def test_heads_are_refused_until_the_very_moment_at_which_there_is_room(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    with gate(tmp_path, "1 rpm", clock=clock) as it:
        before = statuses(it, 2)
        clock.advance(us=MINUTE - 1)
        with dial(it.url) as caller:
            early = ask(caller, gates.SECRET, GIGABYTE)
        clock.advance(us=1)
        after = statuses(it, 2)

    assert [200, 429] == before
    assert early.startswith(b"HTTP/1.1 429 ")
    assert [200, 429] == after


def test_those_refused_by_their_heads_are_told_one_moment_after_another(
    tmp_path: Path,
) -> None:
    with gate(tmp_path, "1 rpm", clock=ManualClock()) as it, it.client() as client:
        assert 200 == it.chat(client).status_code
        told = [it.chat(client).headers["retry-after-ms"] for _ in range(3)]

    assert [1, 2, 3] == [int(one) // 60_000 for one in told]


def test_a_call_that_may_wait_long_enough_is_read_and_stands_in_line(
    tmp_path: Path,
) -> None:
    with gate(tmp_path, "1 request/s", max_wait="5s") as it, it.client() as hasty:
        hasty.headers["x-ratekeeper-max-wait"] = "0s"
        before = [it.chat(hasty).status_code for _ in range(2)]
        patient = statuses(it, 1)

    assert [200, 429] == before
    assert [200] == patient


def test_what_a_body_decides_is_read_whatever_was_refused_before(
    tmp_path: Path,
) -> None:
    said = [{"role": "user", "content": "hello " * 600}]
    with gate(tmp_path, "1000 tpm", clock=ManualClock()) as it, it.client() as client:
        large = [it.chat(client, messages=said).status_code for _ in range(2)]
        small = it.chat(client).status_code

    assert [200, 429] == large
    assert 200 == small


def test_counting_tokens_takes_no_request_and_is_let_through(tmp_path: Path) -> None:
    keys = [gates.client_key(limits=["1 request/hour"], max_wait="0s")]
    body = {"model": "claude-sonnet-4-5", "messages": gates.MESSAGES}
    with gates.behind("anthropic") as upstream:
        providers = {"anthropic": gates.account(upstream.url)}
        config = gates.config(tmp_path, providers, keys)
        with gates.gate(config) as it, it.client() as client:
            client.headers["anthropic-version"] = "2023-06-01"
            replies = [
                client.post("/v1/messages", json={**body, "max_tokens": 9}),
                client.post("/v1/messages", json={**body, "max_tokens": 9}),
                client.post("/v1/messages/count_tokens", json=body),
            ]

    assert [200, 429, 200] == [one.status_code for one in replies]


def test_a_limit_that_is_only_watched_by_now_refuses_nobody(tmp_path: Path) -> None:
    limit = "1 request/hour"
    with gate(tmp_path, limit, clock=ManualClock()) as it:
        before = statuses(it, 2)
        roster = it.gateway.roster
        caller = roster.caller(gates.SECRET, 0)
        assert caller is not None
        scope = caller.targets[0][0]
        it.gateway.store.reshape(scope, policy.rules_of([limit], shadow={0}))
        after = statuses(it, 2)

    assert [200, 429] == before
    assert [200, 200] == after
