"""The seams of a call: between line and account, reload and call, body and wire."""

import asyncio
import contextlib
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ratekeeper.core.breaker import FAILURES
from ratekeeper.gateway import intake
from tests.faults.scripted import Asked, scripted
from tests.gateway import gates
from tests.gateway.gates import Behind, Gate, account, asgi, behind, client_key, gate

CHAT = "/v1/chat/completions"


@pytest.fixture
def upstream() -> Iterator[Behind]:
    with behind() as it:
        yield it


def _until(holds: Callable[[], bool], within_s: float = 5.0) -> bool:
    end = time.monotonic() + within_s
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def _account(it: Gate, upstream: str = "openai") -> Any:
    return it.gateway.roster.upstreams[upstream].accounts[0]


async def _provider(scope: Any, receive: Any, send: Any) -> None:
    """Answer once the whole body is there."""
    while (await receive()).get("more_body", False):
        pass
    headers = [(b"content-length", b"2"), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


def test_an_upload_that_is_too_large_is_its_callers_fault(tmp_path: Path) -> None:
    """Else a few of them would close the account to everybody."""

    def parts() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 65536

    with asgi(_provider) as url:
        config = gates.config(tmp_path, {"openai": account(url)}, max_body="1MiB")
        with gate(config) as it, it.client() as client:
            statuses = [
                client.post(
                    "/v1/files",
                    content=parts(),
                    headers={"content-type": "multipart/form-data; boundary=B"},
                ).status_code
                for _ in range(FAILURES)
            ]
            is_closed = _account(it).breaker.is_closed

    assert [413] * FAILURES == statuses
    assert is_closed


def test_a_call_that_is_let_through_to_a_closed_account_is_not_sent(
    tmp_path: Path, upstream: Behind
) -> None:
    keys = [client_key(limits=["1 request/2s"], max_wait="5s")]
    providers = {"openai": account(upstream.url)}
    with gate(gates.config(tmp_path, providers, keys)) as it, it.client() as client:
        it.chat(client)
        statuses: list[int] = []

        def wait_in_line() -> None:
            with it.client() as other:
                statuses.append(it.chat(other).status_code)

        thread = threading.Thread(target=wait_in_line)
        thread.start()
        assert _until(lambda: it.gateway.open_calls == 1)
        _account(it).standing.until_us = it.gateway.now_us() + 60_000_000
        thread.join()

    assert [503] == statuses
    assert 1 == upstream.requests


def test_a_reload_opens_no_account_that_was_closed(
    tmp_path: Path, upstream: Behind
) -> None:
    with behind("openai", "status=402 @ 1") as broke:
        config = gates.config(tmp_path, {"openai": account(broke.url)})
        with gate(config) as it, it.client() as client:
            it.chat(client)
            it.reload(config)
            again = it.chat(client)
            elsewhere = gates.config(tmp_path, {"openai": account(upstream.url)})
            it.reload(elsewhere)
            fresh = it.chat(client)

    assert 503 == again.status_code
    assert 1 == broke.requests
    assert 200 == fresh.status_code


def test_a_fallback_is_paid_for_at_its_own_price(
    tmp_path: Path, upstream: Behind
) -> None:
    """Else a budget would be passed by going to a dearer model."""
    keys = [client_key(limits=["$10/day"])]
    fallbacks = {"cheap": ["openai/gpt-4o"]}
    prices = {
        **gates.PRICES,
        "cheap": {"input": "0", "output": "0", "max_output": 100},
    }
    providers = {"openai": account(upstream.url)}
    config = gates.config(tmp_path, providers, keys, fallbacks=fallbacks, prices=prices)
    with gate(config) as it, it.client() as client:
        reply = it.chat(client, model="cheap")

    assert 200 == reply.status_code
    assert "0 usd" != reply.headers["x-ratekeeper-cost"]


def test_what_a_stream_that_is_cut_has_used_is_written_down(
    tmp_path: Path, upstream: Behind
) -> None:
    config = gates.config(tmp_path, {"openai": account(upstream.url)})
    asked = {
        "model": "gpt-4o",
        "stream": True,
        "max_tokens": 500,
        "messages": gates.MESSAGES,
    }
    with gate(config) as it, it.client() as client:
        headers = {"x-simulate": "pace=0.02"}
        with client.stream("POST", CHAT, json=asked, headers=headers) as reply:
            seen = 0
            for part in reply.iter_bytes():
                seen += part.count(b'"content"')
                if seen > 5:
                    break
        assert _until(lambda: it.gateway.open_calls == 0)
    with contextlib.closing(sqlite3.connect(tmp_path / "ratekeeper.db")) as file:
        rows = file.execute(
            "SELECT requests, output_tokens > 0, cost_nano > 0 FROM spend"
        ).fetchall()

    assert [(1, 1, 1)] == rows


def test_a_call_under_way_survives_a_reload_with_other_limits(
    tmp_path: Path, upstream: Behind
) -> None:
    """Its next attempt goes by the limits as they are then."""
    seen: list[int] = []
    go_on = threading.Event()

    async def provider(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body", False):
            pass
        seen.append(1)
        if len(seen) == 1:
            await asyncio.to_thread(go_on.wait, 10)
        status = 429 if len(seen) == 1 else 200
        headers = [
            (b"content-length", b"2"),
            (b"content-type", b"application/json"),
            (b"retry-after", b"0"),
        ]
        await send(
            {"type": "http.response.start", "status": status, "headers": headers}
        )
        await send({"type": "http.response.body", "body": b"{}"})

    with asgi(provider) as url:
        providers = {"openai": account(url)}
        teams = {"search": {"limits": ["100 rpm"]}}
        keys = [client_key(team="search")]
        first = gates.config(tmp_path, providers, keys, teams=teams)
        more = {"search": {"limits": ["100 rpm", "1M tpm", "$50/day"]}}
        second = gates.config(tmp_path, providers, keys, teams=more)
        with gate(first) as it:
            statuses: list[int] = []

            def call() -> None:
                with it.client() as client:
                    statuses.append(it.chat(client).status_code)

            thread = threading.Thread(target=call)
            thread.start()
            assert _until(lambda: len(seen) == 1)
            it.reload(second)
            go_on.set()
            thread.join()

    assert [200] == statuses


def _answered(sock: socket.socket, asked: Asked) -> bool:
    del asked
    sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    return True


def test_a_form_is_not_sent_to_a_model_of_another_name(tmp_path: Path) -> None:
    fallbacks = {"whisper": ["openai/whisper-1"]}
    keys = [client_key(allow_models=["whisper"])]
    with scripted(_answered) as provider:
        providers = {"openai": account(provider.url)}
        config = gates.config(tmp_path, providers, keys, fallbacks=fallbacks)
        with gate(config) as it, it.client() as client:
            reply = client.post(
                "/v1/audio/transcriptions",
                data={"model": "whisper"},
                files={"file": ("a.wav", b"x")},
            )
    (asked,) = provider.asked

    assert 200 == reply.status_code
    assert b"\r\nwhisper\r\n" in asked.body


def test_a_call_larger_than_a_limit_that_was_lowered_is_told_so(
    tmp_path: Path, upstream: Behind
) -> None:
    """It is not told to come back in ten thousand years."""
    providers = {"openai": account(upstream.url)}

    def limited(amount: str) -> Any:
        keys = [client_key(team="search", max_wait="10s")]
        teams = {"search": {"limits": [amount]}}
        return gates.config(tmp_path, providers, keys, teams=teams)

    with gate(limited("100 tokens/10s")) as it, it.client() as client:
        it.chat(client, max_tokens=60)
        replies: list[httpx2.Response] = []

        def wait_in_line() -> None:
            with it.client() as other:
                replies.append(it.chat(other, max_tokens=60))

        thread = threading.Thread(target=wait_in_line)
        thread.start()
        assert _until(lambda: it.gateway.open_calls == 1)
        time.sleep(0.05)
        it.reload(limited("50 tokens/10s"))
        thread.join()

    assert "retry-after" not in replies[0].headers
    assert "more than the limit" in json.dumps(replies[0].json())


def test_a_renaming_fallback_takes_what_the_lenient_reader_takes() -> None:
    body = rb'{"model": "a", "note": NaN, "messages": []}'

    said = json.loads(intake.with_model(body, "b"))

    assert ("b", []) == (said["model"], said["messages"])
