"""The gateway's file locked, removed, or read-only.

Nobody spends what is not kept, all others pass, and it is told once and got over.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kept import OUTAGE_S, on_disk, settled
from tests.gateway import gates
from tests.gateway.gates import Behind, Gate, account, asgi, behind, client_key, gate


@pytest.fixture
def upstream() -> Iterator[Behind]:
    with behind() as it:
        yield it


@pytest.fixture
def it(tmp_path: Path, upstream: Behind) -> Iterator[Gate]:
    keys = [client_key(limits=["100 requests/day"]), client_key("free", FREE)]
    with gate(gates.config(tmp_path, {"openai": account(upstream.url)}, keys)) as it:
        yield it


FREE = "rk-" + "f" * 43  # a key without any limit that is kept
FRESH = "rk-" + "n" * 43  # a key with one, that has not called yet


def recovered(it: Gate) -> bool:
    until = time.monotonic() + 5
    with it.client() as client:
        while time.monotonic() < until:
            if it.chat(client).status_code == 200:
                return True
            time.sleep(0.05)
    return False


def test_a_file_that_another_holds_stops_calls_under_budgets_and_no_others(
    tmp_path: Path, it: Gate, upstream: Behind
) -> None:
    path = tmp_path / "ratekeeper.db"
    with it.client() as client, it.client(FREE) as free:
        assert 200 == it.chat(client).status_code
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        refused = [it.chat(client) for _ in range(5)]
        slowest = 0.0
        for _ in range(50):
            begun = time.monotonic()
            assert 200 == it.chat(free).status_code
            slowest = max(slowest, time.monotonic() - begun)
        other.execute("ROLLBACK")
        other.close()
    seen = upstream.requests

    assert {503} == {answer.status_code for answer in refused}
    assert "ratekeeper.db" not in refused[0].text
    assert "cannot write down what the call takes; try again in" in refused[0].text
    assert "1" == refused[0].headers["retry-after"]
    assert 51 == seen
    assert slowest < 0.25  # nobody else stands still for it
    assert recovered(it)


def test_a_file_that_is_removed_is_told_and_nothing_is_spent_beside_it(
    tmp_path: Path, it: Gate, upstream: Behind, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ratekeeper.db"
    with it.client() as client:
        assert 200 == it.chat(client).status_code
        path.rename(tmp_path / "elsewhere")
        removed = it.chat(client).status_code
        path.touch()
        replaced = it.chat(client).status_code
        path.unlink()
        path.mkdir()
        covered = it.chat(client).status_code
        path.rmdir()
        (tmp_path / "elsewhere").rename(path)

    assert (503, 503, 503) == (removed, replaced, covered)
    assert 1 == upstream.requests
    assert "ratekeeper.db cannot be used" in caplog.text
    assert recovered(it)
    assert 2 == upstream.requests
    time.sleep(0.2)
    assert 2 == on_disk(path)


@contextlib.contextmanager
def read_only(it: Gate) -> Iterator[None]:
    """Let SQLite refuse every write to the gateway's file: SQLITE_READONLY."""

    def set_to(value: str) -> None:
        done = threading.Event()

        def do() -> None:
            with it.gateway._database.reading() as connection:
                connection.execute(f"PRAGMA query_only={value}")
            done.set()

        it.gateway.ledger._loop.call_soon_threadsafe(do)
        assert done.wait(5)

    set_to("ON")
    yield
    set_to("OFF")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the log said of the file, in a word each."""
    words = "will be tried again", "nothing was lost"
    return [
        word
        for record in caplog.records
        for word in words
        if word in record.getMessage()
    ]


def test_a_file_that_is_read_only_is_told_once_and_no_budget_is_passed(
    tmp_path: Path, upstream: Behind, caplog: pytest.LogCaptureFixture
) -> None:
    """Each refused call charges and gives back: nothing is left to be written then."""
    limits = ["3 requests/day", "$1/day"]
    keys = [
        client_key(limits=limits),
        client_key("free", FREE),
        client_key("fresh", FRESH, limits=limits),
    ]
    config = gates.config(
        tmp_path, {"openai": account(upstream.url)}, keys, max_wait="0s"
    )
    with (
        gate(config) as it,
        it.client() as client,
        it.client(FRESH) as fresh,
        it.client(FREE) as free,
    ):
        before = it.chat(client).status_code
        assert settled(tmp_path / "ratekeeper.db", 1)
        refused = []
        with read_only(it):
            until = time.monotonic() + OUTAGE_S
            while time.monotonic() < until:
                refused += [it.chat(client), it.chat(fresh)]
            passed = [it.chat(free).status_code for _ in range(5)]
            health = [client.get(path).status_code for path in ("/readyz", "/healthz")]
        assert recovered(it)
        after = [it.chat(client).status_code for _ in range(2)]

    assert 200 == before
    assert {(503, "1")} == {(a.status_code, a.headers["retry-after"]) for a in refused}
    assert [200] * 5 == passed
    assert [200, 200] == health  # all but budgets is served: it stays in its balancer
    assert ["will be tried again", "nothing was lost"] == told(caplog)
    assert [200, 429] == after
    assert 3 + 5 == upstream.requests


def test_a_call_under_way_when_the_file_becomes_read_only_is_answered_and_kept(
    tmp_path: Path,
) -> None:
    come, go_on = threading.Event(), threading.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        del scope
        while (await receive()).get("more_body", False):
            pass
        come.set()
        await asyncio.to_thread(go_on.wait, 10)
        body = b'{"usage": {"prompt_tokens": 5, "completion_tokens": 2}}'
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    keys = [client_key(limits=["1000 tokens/day"])]
    statuses = []
    with (
        asgi(slow) as url,
        gate(gates.config(tmp_path, {"openai": account(url)}, keys)) as it,
        it.client() as client,
    ):
        call = threading.Thread(
            target=lambda: statuses.append(it.chat(client).status_code)
        )
        call.start()
        assert come.wait(5)
        with read_only(it):
            go_on.set()
            call.join()
            time.sleep(0.1)  # so that writing it is tried
            held = on_disk(tmp_path / "ratekeeper.db")

    assert [200] == statuses
    assert held > 7
    assert 7 == on_disk(tmp_path / "ratekeeper.db")
