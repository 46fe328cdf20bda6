"""A config that is loaded anew, and the calls and keys that it finds."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from ratekeeper.config.model import ClientKey
from ratekeeper.gateway.keystore import KeyStore
from ratekeeper.stores.database import Database
from tests.gateway import gates
from tests.gateway.gates import Gate, account, behind, client_key, gate

OTHER = "rk-" + "o" * 43


def _created(folder: Path, **said: Any) -> None:
    """Put a client key into the store."""
    with contextlib.closing(Database(folder / "ratekeeper.db")) as database:
        store = KeyStore(database)
        store.hasher(gates.ENVIRON)
        store.create(ClientKey(hash=gates.digest(OTHER), **said), now_us=0)


def _statuses(it: Gate, many: int = 1, secret: str = gates.SECRET) -> list[int]:
    with it.client(secret) as client:
        return [it.chat(client).status_code for _ in range(many)]


def test_what_a_reload_cannot_change_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> list[str]:
        found = [one.message for one in caplog.records]
        caplog.clear()
        return found

    first = gates.config(tmp_path, {})
    store = f"sqlite:///{tmp_path / 'other.db'}"
    with gate(first) as it:
        it.reload(gates.config(tmp_path, {}, max_wait="5s"))
        nothing = told()
        it.reload(gates.config(tmp_path, {}, listen="127.0.0.1:1", store=store))
        two = told()
        it.reload(gates.config(tmp_path, {}, drain="5s", auth="none"))
        drain = told()
        it.reload(first)
        again = told()

    assert [[], []] == [nothing, again]
    assert ["listen, store: in force after a restart"] == two
    assert [
        "drain: in force after a restart",
        "auth: none: callers need no client key any more",
    ] == drain


def test_a_key_whose_team_leaves_the_config_lets_nobody_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody knows what limits its calls, and without any they must not pass."""
    _created(tmp_path, name="bob", team="a")
    teams: dict[str, Any] = {"a": {"limits": ["2 rpm"]}}
    keys = [client_key(max_wait="0s")]
    with behind() as upstream:
        providers = {"openai": account(upstream.url)}

        def config(**said: Any) -> Any:
            return gates.config(tmp_path, providers, keys, max_wait="0s", **said)

        with gate(config(teams=teams)) as it:
            before = _statuses(it, 1, OTHER)
            it.reload(config())
            without = _statuses(it, 1, OTHER)
            others = _statuses(it)
            it.do(it.gateway._hear_of_keys)  # what is known is not told again
            it.reload(config(teams=teams))
            again = _statuses(it, 2, OTHER)
    told = [one.message for one in caplog.records if "'bob'" in one.message]

    assert [[200], [401], [200], [200, 429]] == [before, without, others, again]
    assert 1 == len(told)
    assert "its team 'a' is not in the config" in told[0]
