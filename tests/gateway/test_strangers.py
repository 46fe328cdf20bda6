"""Whose key lets nobody in: the operator is told, and the caller is not."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ratekeeper.config.model import ClientKey
from ratekeeper.gateway.keystore import KeyStore
from ratekeeper.gateway.observer import Done, Observer
from ratekeeper.stores.database import Database
from tests.gateway import gates
from tests.gateway.gates import gate

if TYPE_CHECKING:
    from pathlib import Path


def test_a_key_that_lets_nobody_in_any_more_is_known_to_the_operator_alone(
    tmp_path: Path,
) -> None:
    heard: list[Done] = []

    class Ear(Observer):
        def done(self, done: Done) -> None:
            heard.append(done)

    with contextlib.closing(Database(tmp_path / "ratekeeper.db")) as database:
        store = KeyStore(database)
        store.hasher(gates.ENVIRON)
        for name in ("gone", "stays"):
            digest = gates.digest(f"rk-{name}")
            store.create(ClientKey(name=name, hash=digest), now_us=0)
        store.revoke("gone", now_us=1)
    keys = [gates.client_key("over", "rk-over", expires="2020-01-01")]
    told = []
    with gate(gates.config(tmp_path, {}, keys), observer=lambda _: Ear()) as it:
        for name in ("gone", "over", "nobody"):
            with it.client(f"rk-{name}") as client:
                told.append(it.chat(client))

    assert [("gone", "revoked"), ("over", "expired"), ("", "unknown_key")] == [
        (one.key, one.fault) for one in heard
    ]
    assert {401} == {one.status_code for one in told}
    assert 1 == len({one.text for one in told})
    assert 1 == len({tuple(one.headers) for one in told})
    assert "expired, revoked or not known here" in told[0].text
