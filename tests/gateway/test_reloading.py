"""A config that is loaded anew, and the calls and keys that it finds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ratekeeper.config.model import ClientKey, Config
from ratekeeper.core.units import SECOND
from ratekeeper.gateway.app import Gateway
from ratekeeper.gateway.keystore import KeyStore
from ratekeeper.gateway.observer import Observer
from ratekeeper.providers.facts import Kind, Verdict
from ratekeeper.stores.database import Database
from ratekeeper.testing import ManualClock
from tests.faults.scripted import Asked, scripted
from tests.gateway import gates
from tests.gateway.gates import Behind, Gate, account, behind, client_key, gate

OTHER = "rk-" + "o" * 43
ENVIRON = {"OTHER_KEY": "sk-upstream-other-0123456789abcdefghijkl"}


@pytest.fixture
def upstream() -> Iterator[Behind]:
    with behind(keys=[gates.UPSTREAM_KEY, ENVIRON["OTHER_KEY"]]) as it:
        yield it


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as it:
        yield it


def _created(folder: Path, **said: Any) -> None:
    """Put a client key into the store."""
    with contextlib.closing(Database(folder / "ratekeeper.db")) as database:
        store = KeyStore(database)
        store.hasher(gates.ENVIRON)
        store.create(ClientKey(hash=gates.digest(OTHER), **said), now_us=0)


def _statuses(it: Gate, many: int = 1, secret: str = gates.SECRET) -> list[int]:
    with it.client(secret) as client:
        return [it.chat(client).status_code for _ in range(many)]


def test_a_key_is_known_as_soon_as_it_is_made(tmp_path: Path) -> None:
    with behind() as upstream:
        providers = {"openai": account(upstream.url)}
        with gate(gates.config(tmp_path, providers)) as it:
            before = _statuses(it, 1, OTHER)
            time.sleep(0.02)
            _created(tmp_path, name="new")
            after = _statuses(it, 1, OTHER)

    assert ([401], [200]) == (before, after)


def test_strangers_have_keys_looked_for_so_often_and_no_more(tmp_path: Path) -> None:
    clock = ManualClock()
    gateway = Gateway(gates.config(tmp_path, {}), environ=gates.ENVIRON, clock=clock)
    try:
        gateway.hears_anew()
        _created(tmp_path, name="new")
        at_once = gateway.hears_anew()
        clock.advance(0.02)
        later = [gateway.hears_anew(), gateway.hears_anew()]
    finally:
        asyncio.run(gateway.close())

    assert not at_once
    assert [True, False] == later


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
    told = [one.message for one in caplog.records if one.levelno >= logging.ERROR]

    assert [[200], [401], [200], [200, 429]] == [before, without, others, again]
    assert 1 == len(told)
    assert "its team 'a' is not in the config" in told[0]


def _until(holds: Callable[[], bool], within_s: float = 5.0) -> bool:
    end = time.monotonic() + within_s
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    return holds()


class Callers:
    """Callers, each in a thread of its own, and what they were told in which order."""

    def __init__(self, it: Gate, pool: ThreadPoolExecutor) -> None:
        self.told: list[tuple[str, int]] = []
        self._it, self._pool = it, pool
        self._waiting: list[Future[None]] = []

    def come(
        self,
        name: str = "",
        secret: str = gates.SECRET,
        *,
        call: Callable[[httpx2.Client], httpx2.Response] | None = None,
        **said: Any,
    ) -> None:
        """Have one more call come, and wait until it stands in line."""

        def run() -> None:
            with self._it.client(secret) as client:
                reply = call(client) if call else self._it.chat(client, **said)
            self.told.append((name, reply.status_code))

        stand = self._stand() + 1
        self._waiting.append(self._pool.submit(run))
        assert _until(lambda: stand == self._stand())

    def _stand(self) -> int:
        gateway = self._it.gateway
        steps = sum(len(one._places) for one in gateway.doorsteps._steps.values())
        return steps + sum(len(one.crowd) for one in gateway.roster.accounts)

    def statuses(self, within_s: float = 5.0) -> list[int]:
        """Return what those were told who came, in that order."""
        for one in self._waiting:
            one.result(timeout=within_s)
        return [status for _, status in self.told]


ONE: dict[str, Any] = {"limits": ["1 request/20s"]}
NINE: dict[str, Any] = {"limits": ["9 requests/20s"]}
NONE: dict[str, Any] = {}
SHADOW: dict[str, Any] = {"limits": ["1 request/20s"], "shadow": True}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((ONE, NONE), (NINE, NONE)),
        ((ONE, NONE), (NONE, NONE)),
        ((ONE, NONE), (SHADOW, NONE)),
        ((ONE, NONE), (NONE, NINE)),
        ((NONE, ONE), (NONE, NINE)),
        ((NONE, ONE), (NONE, NONE)),
    ],
)
def test_a_limit_that_holds_nobody_up_any_more_frees_those_in_line(
    tmp_path: Path,
    upstream: Behind,
    pool: ThreadPoolExecutor,
    before: tuple[dict[str, Any], ...],
    after: tuple[dict[str, Any], ...],
) -> None:
    def config(key: dict[str, Any], team: dict[str, Any]) -> Config:
        keys = [client_key(team="a", max_wait="1 minute", **key)]
        providers = {"openai": account(upstream.url)}
        return gates.config(tmp_path, providers, keys, teams={"a": team})

    with gate(config(*before)) as it:
        assert [200] == _statuses(it)
        callers = Callers(it, pool)
        callers.come()
        it.reload(config(*after))
        statuses = callers.statuses()

    assert [200] == statuses


@pytest.mark.parametrize("is_known", [True, False])
def test_a_program_in_line_at_the_desk_is_granted_what_a_reload_allows(
    tmp_path: Path, pool: ThreadPoolExecutor, is_known: bool
) -> None:
    def config(account_name: str, *keys: Any) -> Config:
        url = "http://127.0.0.1:9/v1"
        providers = {"openai": account(url, "1 request/s", name=account_name)}
        return gates.config(tmp_path, providers, list(keys), max_wait="20s")

    bob = client_key("bob", OTHER)
    with gate(config("one", client_key(), bob)) as it:

        def acquire(secret: str) -> httpx2.Response:
            asked = {"provider": "openai", "take": {}}
            with it.client(secret) as client:
                return client.post("/v1/ratekeeper/acquire", json=asked)

        assert 200 == acquire(gates.SECRET).status_code
        waiting = pool.submit(acquire, OTHER)
        assert _until(lambda: it.gateway.store._waiting == 1)
        keys = [client_key(), bob] if is_known else [client_key()]
        it.reload(config("two", *keys))
        reply = waiting.result(5)
        places = it.gateway.desk.places.bytes

    assert (200 if is_known else 401) == reply.status_code
    assert ("openai/two" if is_known else None) == reply.json().get("account")
    assert (2 if is_known else 1) == places


def test_a_limit_that_is_taken_away_and_put_back_forgives_nothing(
    tmp_path: Path, upstream: Behind
) -> None:
    def config(*limits: str) -> Config:
        keys = [client_key(max_wait="0s", limits=list(limits))]
        return gates.config(tmp_path, {"openai": account(upstream.url)}, keys)

    with gate(config("2 requests/minute")) as it:
        before = _statuses(it, 2)
        it.reload(config())
        without = _statuses(it)
        it.reload(config("2 requests/minute"))
        after = _statuses(it)

    assert [[200, 200], [200], [429]] == [before, without, after]


def test_a_key_that_is_taken_away_sends_nothing_from_the_line(
    tmp_path: Path, upstream: Behind, pool: ThreadPoolExecutor
) -> None:
    providers = {"openai": account(upstream.url, "1 request/20s")}

    def config(*keys: Any) -> Config:
        return gates.config(tmp_path, providers, list(keys), max_wait="1 minute")

    with gate(config(client_key(), client_key("other", OTHER))) as it:
        assert [200] == _statuses(it)
        callers = Callers(it, pool)
        callers.come("other", OTHER)
        it.reload(config(client_key()))
        statuses = callers.statuses()

    assert [401] == statuses
    assert 1 == upstream.requests


@pytest.mark.parametrize(("allowed", "status"), [("gpt-4o", 200), ("claude*", 403)])
def test_a_call_in_line_is_held_to_the_models_that_a_reload_allows(
    tmp_path: Path,
    upstream: Behind,
    pool: ThreadPoolExecutor,
    allowed: str,
    status: int,
) -> None:
    providers = {"openai": account(upstream.url, "1 request/s")}

    def config(**said: Any) -> Config:
        keys = [client_key(max_wait="1 minute", **said)]
        return gates.config(tmp_path, providers, keys)

    with gate(config()) as it:
        assert [200] == _statuses(it)
        callers = Callers(it, pool)
        callers.come()
        it.reload(config(allow_models=[allowed]))
        statuses = callers.statuses()

    assert [status] == statuses


def test_a_key_of_the_store_that_is_revoked_sends_nothing_from_the_line(
    tmp_path: Path, upstream: Behind, pool: ThreadPoolExecutor
) -> None:
    """Other keys that come or go meanwhile cost nobody their turn."""
    _created(tmp_path, name="bob")
    providers = {"openai": account(upstream.url, "1 request/s")}
    config = gates.config(tmp_path, providers, [client_key(max_wait="20s")])
    with gate(config) as it:
        assert [200] == _statuses(it)
        callers = Callers(it, pool)
        callers.come("app")
        callers.come("bob", OTHER)
        callers.come("app")
        with contextlib.closing(Database(tmp_path / "ratekeeper.db")) as database:
            KeyStore(database).revoke("bob", now_us=0)
        it.do(it.gateway._hear_of_keys)
        callers.statuses()

    assert [("app", 200), ("app", 200), ("bob", 401)] == sorted(callers.told)
    assert 3 == upstream.requests


def test_calls_in_line_at_a_reload_go_to_the_accounts_as_they_are_then(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    """What was taken out of the file, since its key is known to others, is not used."""

    def script(sock: Any, asked: Asked) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        return True

    with scripted(script) as upstream:

        def config(variable: str) -> Config:
            key = {"api_key": f"env:{variable}", "name": variable}
            providers = {"openai": {**account(upstream.url, "1 request/20s"), **key}}
            keys = [client_key(max_wait="1 minute")]
            return gates.config(tmp_path, providers, keys)

        with gate(config("UPSTREAM_KEY"), environ=ENVIRON) as it:
            assert [200] == _statuses(it)
            callers = Callers(it, pool)
            callers.come()
            it.reload(config("OTHER_KEY"))
            statuses = callers.statuses()

    assert [200] == statuses
    assert 2 == len(upstream.asked)
    assert ENVIRON["OTHER_KEY"].encode() in upstream.asked[1].head


def _set_aside(it: Gate, for_s: float) -> None:
    account = it.gateway.roster.accounts[0]

    def do() -> None:
        for_us = int(for_s * SECOND)
        verdict = Verdict(kind=Kind.BILLING, retry=False, retry_after_us=for_us)
        account.judged(verdict, it.gateway.now_us())
        it.gateway.tell_of(account)

    it.do(do)


def test_calls_that_wait_for_a_closed_account_go_where_a_reload_leads(
    tmp_path: Path, upstream: Behind, pool: ThreadPoolExecutor
) -> None:
    def config(url: str) -> Config:
        keys = [client_key(max_wait="1 minute")]
        return gates.config(tmp_path, {"openai": account(url)}, keys)

    with gate(config("http://127.0.0.1:9/v1")) as it:
        _set_aside(it, 30)
        callers = Callers(it, pool)
        for _ in range(3):
            callers.come()
        it.reload(config(upstream.url))
        statuses = callers.statuses()

    assert [200, 200, 200] == statuses
    assert 3 == upstream.requests


def test_calls_that_wait_for_an_account_still_do_so_after_a_reload_in_order(
    tmp_path: Path, upstream: Behind, pool: ThreadPoolExecutor
) -> None:
    providers = {"openai": account(upstream.url, "1 request/s")}
    config = gates.config(tmp_path, providers, [client_key(max_wait="20s")])
    with gate(config) as it:
        _set_aside(it, 1)
        callers = Callers(it, pool)
        for name in "abc":
            callers.come(name)
        it.reload(config)
        it.reload(config)
        before = upstream.requests
        callers.statuses()

    assert 0 == before
    assert [(name, 200) for name in "abc"] == callers.told


def test_a_reload_lets_nobody_rush_at_an_account_that_has_just_opened(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    """Those who still wait for it are let in a few at a time, as before."""
    go_on = threading.Event()

    def script(sock: Any, request: Asked) -> bool:
        go_on.wait(10)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        return True

    with scripted(script) as upstream:
        providers = {"openai": account(upstream.url)}
        config = gates.config(tmp_path, providers, [client_key(max_wait="20s")])
        with gate(config) as it:
            _set_aside(it, 4)
            callers = Callers(it, pool)
            for _ in range(12):
                callers.come()
            assert _until(lambda: len(upstream.asked) == 4)
            it.reload(config)
            rushed = _until(lambda: len(upstream.asked) > 8, within_s=0.5)
            go_on.set()
            statuses = callers.statuses()

    assert not rushed
    assert [200] * 12 == statuses


def test_calls_in_line_keep_their_places_over_a_reload(
    tmp_path: Path, upstream: Behind, pool: ThreadPoolExecutor
) -> None:
    providers = {"openai": account(upstream.url, "1 request/s")}
    config = gates.config(tmp_path, providers, [client_key(max_wait="20s")])
    with gate(config) as it:
        assert [200] == _statuses(it)
        callers = Callers(it, pool)
        for name in "abc":
            callers.come(name)
        it.reload(config)
        callers.come("d")
        callers.statuses()

    assert [(name, 200) for name in "abcd"] == callers.told
    assert 5 == upstream.requests


def test_a_call_in_line_at_a_reload_keeps_its_fallbacks(
    tmp_path: Path, upstream: Behind, pool: ThreadPoolExecutor
) -> None:
    """Its body is not kept as it was read, nor read again."""
    providers = {
        "openai": account(upstream.url),
        "holysheep": account(upstream.url, "1 request/s"),
    }
    fallbacks = {"ours": ["holysheep/gpt-4o-mini"]}
    keys = [client_key(max_wait="20s")]
    config = gates.config(tmp_path, providers, keys, fallbacks=fallbacks)
    models: list[str] = []
    with gate(config) as it:

        def call(client: httpx2.Client) -> httpx2.Response:
            reply = it.chat(client, model="ours")
            models.append(reply.json()["model"])
            return reply

        with it.client() as client:
            call(client)
        callers = Callers(it, pool)
        callers.come(call=call)
        it.reload(config)
        callers.statuses()

    assert ["gpt-4o-mini", "gpt-4o-mini"] == models


def test_a_call_in_line_at_a_reload_stays_where_belongs_what_it_names(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    name = "file-abcdef0123456789"

    def script(sock: Any, request: Asked) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        return True

    def call(client: httpx2.Client) -> httpx2.Response:
        return client.get(f"/v1/files/{name}")

    with scripted(script) as home, scripted(script) as roomy:
        accounts = [
            account(home.url, "1 request/s", name="one"),
            account(roomy.url, "100 requests/s", name="two"),
        ]
        providers = {"openai": {"accounts": accounts}}
        config = gates.config(tmp_path, providers, [client_key(max_wait="20s")])
        with gate(config) as it, it.client() as client:
            it.do(lambda: it.gateway.homes.made(name, "openai/one", "key/app"))
            call(client)
            callers = Callers(it, pool)
            callers.come(call=call)
            it.reload(config)
            statuses = callers.statuses()

    assert [200] == statuses
    assert (2, 0) == (len(home.asked), len(roomy.asked))


class Heard(Observer):
    """Keeps what it hears of accounts."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def set_aside(self, account: str, reason: str, for_us: int) -> None:
        self.told.append(f"{account} {reason}")

    def back(self, account: str) -> None:
        self.told.append(f"{account} back")


@pytest.mark.parametrize("is_kept", [True, False])
def test_an_account_that_a_call_from_before_a_reload_closes_is_told_of_twice(
    tmp_path: Path, pool: ThreadPoolExecutor, is_kept: bool
) -> None:
    """That it is set aside, and that it answers; another one in its place is not."""
    begun, go_on = threading.Event(), threading.Event()

    def script(sock: Any, request: Asked) -> bool:
        if begun.is_set():
            sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            return True
        begun.set()
        go_on.wait(10)
        said = b"content-length: 2\r\nretry-after: 1\r\n\r\n{}"
        sock.sendall(b"HTTP/1.1 503 Overloaded\r\n" + said)
        return True

    heard = Heard()
    with scripted(script) as upstream:

        def config(variable: str) -> Config:
            key = {"api_key": f"env:{variable}", "name": "one"}
            providers = {"openai": {**account(upstream.url), **key}}
            return gates.config(tmp_path, providers, [client_key(max_wait="0s")])

        first = config("UPSTREAM_KEY")
        with gate(first, environ=ENVIRON, observer=lambda _: heard) as it:
            call = pool.submit(_statuses, it)
            assert begun.wait(5)
            it.reload(first if is_kept else config("OTHER_KEY"))
            go_on.set()
            statuses = call.result(5)
            one = it.gateway.roster.accounts[0]
            closed = one.wait_us(it.gateway.now_us()) > 0
            assert _until(lambda: not one.wait_us(it.gateway.now_us()))
            time.sleep(0.6)  # it is looked at twice a second
            before = [*heard.told]
            statuses += _statuses(it)
            assert _until(lambda: not is_kept or "openai/one back" in heard.told)

    assert [503, 200] == statuses
    assert is_kept == closed
    assert (["openai/one overloaded"] if is_kept else []) == before
    assert (
        ["openai/one overloaded", "openai/one back"] if is_kept else []
    ) == heard.told


def test_an_account_that_a_reload_opens_is_told_to_be_back(tmp_path: Path) -> None:
    heard = Heard()

    def config(variable: str) -> Config:
        key = {"api_key": f"env:{variable}", "name": "one"}
        providers = {"openai": {**account("http://127.0.0.1:9/v1"), **key}}
        return gates.config(tmp_path, providers)

    with gate(config("UPSTREAM_KEY"), environ=ENVIRON, observer=lambda _: heard) as it:
        _set_aside(it, 60)
        it.reload(config("OTHER_KEY"))
        assert _until(lambda: len(heard.told) > 1)

    assert ["openai/one billing", "openai/one back"] == heard.told


def test_a_body_that_comes_slowly_takes_nothing_of_the_wait_in_line(
    tmp_path: Path, upstream: Behind, pool: ThreadPoolExecutor
) -> None:
    clock = ManualClock()
    keys = [client_key(max_wait="2s", limits=["1 request/s"])]
    config = gates.config(tmp_path, {"openai": account(upstream.url)}, keys)
    go_on = threading.Event()
    asked = {"model": "gpt-4o", "max_tokens": 5, "messages": gates.MESSAGES}
    body = json.dumps(asked).encode()

    def slow() -> Iterator[bytes]:
        yield body[:9]
        assert go_on.wait(5)
        yield body[9:]

    with gate(config, clock=clock) as it, it.client() as client:
        call = pool.submit(client.post, "/v1/chat/completions", content=slow())
        assert _until(lambda: it.gateway.open_calls == 1)
        clock.advance(3)
        others = _statuses(it)
        go_on.set()
        (one,) = it.gateway.roster.accounts
        assert _until(lambda: len(one.crowd) == 1 or call.done())
        clock.advance(1)
        status = call.result(5).status_code

    assert [[200], 200] == [others, status]
