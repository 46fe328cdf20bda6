"""Errors of providers that break off, stall, drip or are huge: none is passed on as whole.

What their heads say is heeded all the same.
"""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from ratekeeper.core.backoff import Backoff
from ratekeeper.core.breaker import FAILURES
from ratekeeper.gateway import call, choice
from ratekeeper.testing import ManualClock
from tests.client.clients import deaf_port
from tests.faults.scripted import Asked, Script, scripted
from tests.gateway import gates
from tests.gateway.gates import Behind, Gate, account, behind, client_key, gate
from tests.gateway.stand_in import Caller

JSON = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\n"
BAD = JSON % b"400 Bad Request"
BEGUN = b'{"error": {"message"'


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "_ERROR_S", 0.2)


@pytest.fixture
def idle() -> Iterator[Behind]:
    with behind() as it:
        yield it


def _saying(*parts: bytes, every_s: float = 0.0, until_gone: bool = False) -> Script:
    def script(sock: socket.socket, asked: Asked) -> None:
        del asked
        for part in parts:
            sock.sendall(part)
            time.sleep(every_s)
        if until_gone:
            sock.recv(1)

    return script


def _request(body: bytes, start: bytes = b"POST /v1/chat/completions") -> bytes:
    return (
        b"%s HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n"
        b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n%s"
    ) % (start, gates.SECRET.encode(), len(body), body)


def _asked(folder: Path, script: Script, sent: bytes = b"") -> tuple[bytes, bytes]:
    """Call once; return the head of the answer and its body."""
    with scripted(script) as provider:
        config = gates.config(folder, {"openai": account(provider.url)})
        with gate(config) as it, Caller(it.url) as caller:
            caller.send(sent or _request(b'{"model": "gpt-4o"}'))
            answer, _, rest = caller.read().partition(b"\r\n\r\n")
    return answer, rest


def test_an_error_that_breaks_off_is_told_as_that(tmp_path: Path) -> None:
    script = _saying(BAD + b"content-length: 200\r\n\r\n" + BEGUN)
    head, body = _asked(tmp_path, script)

    assert head.startswith(b"HTTP/1.1 502 ")
    assert "the answer of openai broke off" in json.loads(body)["error"]["message"]


def test_an_error_that_stalls_is_told_in_time(tmp_path: Path) -> None:
    script = _saying(BAD + b"content-length: 200\r\n\r\n" + BEGUN, until_gone=True)
    head, body = _asked(tmp_path, script)

    assert head.startswith(b"HTTP/1.1 504 ")
    assert "the answer of openai broke off" in json.loads(body)["error"]["message"]


def test_an_error_of_100_kib_is_passed_on_whole(tmp_path: Path) -> None:
    error = b'{"error": {"message": "%s"}}' % (b"x" * 100_000)
    script = _saying(BAD + b"content-length: %d\r\n\r\n%s" % (len(error), error))
    head, body = _asked(tmp_path, script)

    assert head.startswith(b"HTTP/1.1 400 ")
    assert error == body


def test_an_error_beyond_reason_is_not_passed_on(tmp_path: Path) -> None:
    script = _saying(BAD + b"\r\n" + b"x" * (2 << 20))
    head, body = _asked(tmp_path, script)

    assert head.startswith(b"HTTP/1.1 502 ")
    assert len(body) < 1000


@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found"])
def test_what_head_is_answered_says_the_length_there_would_be(
    tmp_path: Path, status: bytes
) -> None:
    script = _saying(JSON % status + b"content-length: 1234\r\n\r\n")
    head, body = _asked(tmp_path, script, _request(b"", b"HEAD /v1/models"))

    assert b"\r\ncontent-length: 1234" in head
    assert b"" == body


def test_a_429_whose_body_stalls_is_heeded(tmp_path: Path) -> None:
    head = JSON % b"429 Too Many" + b"retry-after: 7\r\ncontent-length: 100\r\n\r\n{"
    with scripted(_saying(head, until_gone=True)) as provider:
        keys = [client_key(max_wait="1s")]
        config = gates.config(tmp_path, {"openai": account(provider.url)}, keys)
        with gate(config) as it, it.client() as client:
            first, second = it.chat(client), it.chat(client)

    assert [429, 429] == [first.status_code, second.status_code]
    assert {"6", "7"} >= {first.headers["retry-after"], second.headers["retry-after"]}
    assert 1 == provider.connections  # the limit is paused for everyone


def test_where_an_error_drips_another_account_is_asked(
    tmp_path: Path, idle: Behind
) -> None:
    head = JSON % b"503 Overloaded" + b"transfer-encoding: chunked\r\n\r\n"
    with scripted(_saying(head, *[b"1\r\n \r\n"] * 100, every_s=0.02)) as provider:
        config = gates.config(
            tmp_path,
            {"openai": account(provider.url), "other": account(idle.url)},
            fallbacks={"gpt-4o": ["openai/gpt-4o", "other/gpt-4o"]},
        )
        with gate(config) as it, it.client() as client:
            status = it.chat(client).status_code

    assert 200 == status
    assert 1 == idle.requests


@pytest.mark.parametrize("hint", [b"retry-after: 0", b"retry-after-ms: 0"])
def test_a_429_that_says_at_once_pauses_the_limit_for_a_second(
    tmp_path: Path, hint: bytes
) -> None:
    head = JSON % b"429 Too Many" + hint + b"\r\ncontent-length: 2\r\n\r\n{}"
    with scripted(_saying(head)) as provider:
        keys = [client_key(max_wait="0.5s")]
        config = gates.config(tmp_path, {"openai": account(provider.url)}, keys)
        with gate(config) as it, it.client() as client:
            told = it.chat(client)

    assert (429, "1") == (told.status_code, told.headers["retry-after"])
    assert 1 == len(provider.asked)


@pytest.mark.parametrize("status", [b"429 Too Many", b"503 Overloaded"])
def test_one_call_backs_off_from_a_provider_that_says_at_once_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: bytes
) -> None:
    monkeypatch.setattr(choice, "_BACKOFF", Backoff(attempts=4, base_us=200_000))
    times: list[float] = []

    def script(sock: socket.socket, asked: Asked) -> bool:
        del asked
        times.append(time.monotonic())
        sock.sendall(
            JSON % status + b"retry-after-ms: 1\r\ncontent-length: 2\r\n\r\n{}"
        )
        return True

    with scripted(script) as provider:
        config = gates.config(tmp_path, {"openai": account(provider.url)})
        with gate(config) as it, it.client() as client:
            it.chat(client)
    gaps = [after - before for before, after in itertools.pairwise(times)]

    assert 4 == len(times)
    assert gaps[1] >= 0.1
    assert gaps[2] >= 0.2


def test_a_call_that_has_no_time_to_back_off_is_refused_at_once(tmp_path: Path) -> None:
    head = JSON % b"429 Too Many" + b"retry-after-ms: 1\r\ncontent-length: 2\r\n\r\n{}"
    with scripted(_saying(head)) as provider:
        keys = [client_key(max_wait="0.4s")]  # the least back-off is half a second
        config = gates.config(tmp_path, {"openai": account(provider.url)}, keys)
        with gate(config) as it, it.client() as client:
            status = it.chat(client).status_code

    assert 429 == status
    assert 2 == len(provider.asked)


def _left(it: Gate) -> list[int | Decimal]:
    """Return what the caller's limits have left."""
    caller = it.gateway.roster.caller(gates.SECRET, 0)
    assert caller is not None
    status = it.gateway.store.status
    return [one.remaining for of in caller.targets for one in status(*of)]


def test_who_leaves_while_the_gateway_connects_has_spent_nothing(
    tmp_path: Path,
) -> None:
    # No limit that outlives a restart: what is taken is on its way in the same turn.
    keys = [client_key(limits=["1000 tpm", "10 rpm"])]
    with deaf_port() as port:
        url = f"http://127.0.0.1:{port}/v1"
        config = gates.config(tmp_path, {"openai": account(url)}, keys)
        with gate(config) as it:
            with Caller(it.url) as caller:
                caller.send(_request(b'{"model": "gpt-4o", "max_tokens": 500}'))
                end = time.monotonic() + 5
                while _left(it) == [1000, 10] and time.monotonic() < end:
                    time.sleep(0.01)
                held = _left(it)
            while it.gateway.open_calls and time.monotonic() < end:
                time.sleep(0.01)
            left = _left(it)

    assert 9 == held[1]
    assert [1000, 10] == left


def test_who_leaves_amid_an_error_does_not_keep_others_from_a_closed_account(
    tmp_path: Path,
) -> None:
    """Theirs was the one call that was let in, to see whether it is well again."""
    clock = ManualClock()
    head = JSON % b"500 Oops" + b"content-length: 100\r\n\r\n{"
    with scripted(_saying(head, until_gone=True)) as provider:
        config = gates.config(tmp_path, {"openai": account(provider.url)})
        with gate(config, clock=clock) as it:
            (one,) = it.gateway.roster.accounts
            for _ in range(FAILURES):
                one.breaker.failed(clock.now_us())
            closed_us = one.wait_us(clock.now_us())
            clock.advance(us=closed_us)
            with Caller(it.url) as caller:
                caller.send(_request(b'{"model": "gpt-4o"}'))
                end = time.monotonic() + 5
                while not provider.asked and time.monotonic() < end:
                    time.sleep(0.005)
                probed_us = one.wait_us(clock.now_us())
            while it.gateway.open_calls and time.monotonic() < end:
                time.sleep(0.005)
            left_us = one.wait_us(clock.now_us())

    assert closed_us > 0
    assert probed_us > 0
    assert 0 == left_us
