"""What a gateway does beside its calls, and how it ends: whatever part of it fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratekeeper.config.model import ClientKey
from ratekeeper.errors import StoreUnavailable
from ratekeeper.gateway.app import Gateway
from ratekeeper.gateway.keystore import KeyStore
from ratekeeper.gateway.observer import Log, Observer
from ratekeeper.providers.facts import Usage
from ratekeeper.stores.database import Database
from tests.gateway import gates
from tests.gateway.gates import Behind, account, behind, client_key, gate

EPOCH = 1_700_000_000_000_000


class Failing(Observer):
    """An observer that cannot do its part."""

    def __init__(self) -> None:
        self.asked = 0

    def tick(self) -> None:
        self.asked += 1
        secret = "sk-in-a-message"
        raise ValueError(secret)


@pytest.fixture
def upstream() -> Iterator[Behind]:
    with behind() as it:
        yield it


def test_what_fails_of_the_upkeep_is_told_once_and_ends_nothing(
    tmp_path: Path, upstream: Behind, caplog: pytest.LogCaptureFixture
) -> None:
    observer = Failing()
    keys = [client_key(limits=["100 requests/day"])]
    config = gates.config(tmp_path, {"openai": account(upstream.url)}, keys)
    with (
        gate(config, observer=lambda _: observer) as it,
        it.client() as client,
    ):
        end = time.monotonic() + 5
        while observer.asked < 2 and time.monotonic() < end:
            time.sleep(0.02)
        for _ in range(3):
            assert 200 == it.chat(client).status_code
    with sqlite3.connect(tmp_path / "ratekeeper.db") as file:
        (spent,) = file.execute("SELECT sum(requests) FROM spend").fetchone()
    file.close()
    told = [one.message for one in caplog.records if one.levelname == "ERROR"]

    assert 2 <= observer.asked
    assert ["the observer does not do its part: ValueError"] == told
    assert 3 == spent


def test_keys_are_heard_of_whatever_the_observer_does(
    tmp_path: Path, upstream: Behind
) -> None:
    """Else a key that was revoked would be let in."""
    config = gates.config(tmp_path, {"openai": account(upstream.url)}, [])
    with contextlib.closing(Database(tmp_path / "ratekeeper.db")) as database:
        keys = KeyStore(database)
        keys.create(ClientKey(name="first", hash=gates.digest()), EPOCH)
        with gate(config, observer=lambda _: Failing()) as it, it.client() as client:
            first = it.chat(client).status_code
            keys.revoke("first", EPOCH + 1)
            end = time.monotonic() + 5
            while (last := it.chat(client).status_code) == 200:
                assert time.monotonic() < end
                time.sleep(0.05)

    assert (200, 401) == (first, last)


def test_a_part_that_cannot_be_closed_keeps_no_other_from_it(tmp_path: Path) -> None:
    config = gates.config(tmp_path, {"openai": account("http://127.0.0.1:9/v1")})

    async def end() -> int:
        gateway = Gateway(config, environ=gates.ENVIRON)
        await gateway.start()
        gateway.ledger.spent("app", "", "openai", "gpt-4o", Usage(), {})
        with gateway._database.writing() as connection:
            connection.execute("DROP TABLE spend")
        with pytest.raises(StoreUnavailable):
            await gateway.close()
        return len(asyncio.all_tasks()) - 1

    assert 0 == asyncio.run(end())
    again = Gateway(config, environ=gates.ENVIRON)  # its file is nobody's any longer
    asyncio.run(again.close())


def test_what_was_not_told_yet_is_told_when_it_ends(
    tmp_path: Path, upstream: Behind, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ratekeeper.gateway")
    keys = [client_key(limits=["1 request/day"], max_wait="0s")]
    config = gates.config(tmp_path, {"openai": account(upstream.url)}, keys)
    with gate(config, observer=Log) as it, it.client() as client:
        statuses = [it.chat(client).status_code for _ in range(2)]
    told = [one.message for one in caplog.records if "refusals" in one.message]

    assert [200, 429] == statuses
    assert 1 == len(told)
    assert "refused=1 " in told[0]
