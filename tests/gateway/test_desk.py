"""The desk: grants for programs that keep an HTTP client of their own."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ratekeeper.gateway.app import Gateway
from ratekeeper.gateway.exchange import Wire
from tests.gateway import gates
from tests.gateway.gates import Gate, account, client_key, gate

OTHER = "rk-" + "o" * 43


def _gate(folder: Path, *limits: str, **said: Any) -> AbstractContextManager[Gate]:
    keys = [client_key(limits=list(limits), max_wait="0s"), client_key("b", OTHER)]
    providers = {
        "openai": account("http://127.0.0.1:9/v1", "10 rpm using fixed-window")
    }
    return gate(gates.config(folder, providers, keys, **said))


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Gate]:
    limits = ("3 requests/minute", "1000 tokens/minute", "2 concurrent", "$1/day")
    with _gate(tmp_path, *limits) as running:
        yield running


def _ask(it: Gate, verb: str, key: str = gates.SECRET, **body: Any) -> httpx2.Response:
    with it.client(key) as client:
        return client.post(f"/v1/ratekeeper/{verb}", json=body)


def _take(**more: Any) -> dict[str, Any]:
    return {"tokens": 400, "usd": "0.10", **more}


def test_a_grant_is_taken_and_settled(it: Gate) -> None:
    grant = _ask(it, "acquire", take=_take()).json()["grant"]
    settled = _ask(it, "settle", grant=grant, used={"tokens": 100, "usd": "0.01"})
    caller = it.gateway.roster.caller(gates.SECRET, 0)
    assert caller is not None
    scope, key = caller.targets[0]
    used = [row.used for row in it.gateway.store.status(scope, key)]

    assert {"settled": True} == settled.json()
    assert [1, 100, 0] == used[:3]
    assert "0.01" == str(used[3])


SPEND = """SELECT key, team, provider, model, currency, requests, input_tokens,
    output_tokens, cost_nano FROM spend ORDER BY model"""


def test_what_is_settled_is_in_the_spend_report_of_key_and_team(tmp_path: Path) -> None:
    keys = [client_key(team="search", limits=["1M tokens/minute", "$1/day"])]
    providers = {"openai": account("http://127.0.0.1:9/v1", "100k rpm")}
    with gate(gates.config(tmp_path, providers, keys, teams={"search": {}})) as it:

        def granted(model: str, **take: Any) -> str:
            taken = _take(**take)
            reply = _ask(it, "acquire", provider="openai", model=model, take=taken)
            return str(reply.json()["grant"])

        both = {"input_tokens": 7, "output_tokens": 3, "usd": "0.00001"}
        _ask(it, "settle", grant=granted("a"), used=both)
        _ask(it, "settle", grant=granted("b"), used={"tokens": 9, "requests": 2})
        _ask(it, "settle", grant=granted("c"), refused=True)
        _ask(it, "acquire", model="d", take=_take(tokens=5), hold="10ms")
        granted("e", tokens=6)  # it is out when the gateway ends
        time.sleep(0.1)
    with contextlib.closing(sqlite3.connect(tmp_path / "ratekeeper.db")) as file:
        rows = file.execute(SPEND).fetchall()

    assert [
        ("app", "search", "openai", "a", "usd", 1, 7, 3, 10_000),
        ("app", "search", "openai", "b", "usd", 2, 9, 0, 100_000_000),
        ("app", "search", "", "d", "usd", 1, 5, 0, 100_000_000),
        ("app", "search", "openai", "e", "usd", 1, 6, 0, 100_000_000),
    ] == rows


def test_a_limit_that_is_used_up_refuses_with_the_wait(it: Gate) -> None:
    replies = []
    for _ in range(3):
        reply = _ask(it, "acquire", take=_take())
        if reply.status_code == 200:
            _ask(it, "settle", grant=reply.json()["grant"])
        replies.append(reply)

    assert [200, 200, 429] == [one.status_code for one in replies]  # of 1000 tokens
    assert 55 <= int(replies[2].headers["retry-after"]) <= 60


def test_slots_are_held_until_grants_are_settled(it: Gate) -> None:
    small = _take(tokens=1)
    grants = [_ask(it, "acquire", take=small).json()["grant"] for _ in range(2)]
    refused = _ask(it, "acquire", take=small)
    _ask(it, "settle", grant=grants[0])
    again = _ask(it, "acquire", take=small)

    assert [429, 200] == [refused.status_code, again.status_code]


def test_a_grant_that_nobody_settles_ends_with_its_hold(it: Gate) -> None:
    small = _take(tokens=1)
    for _ in range(2):
        _ask(it, "acquire", take=small, hold="100ms")
    time.sleep(0.3)

    assert 200 == _ask(it, "acquire", take=small).status_code


def test_a_grant_is_settled_once_and_by_its_owner_alone(it: Gate) -> None:
    grant = _ask(it, "acquire", take=_take()).json()["grant"]
    statuses = [
        _ask(it, "settle", OTHER, grant=grant).status_code,
        _ask(it, "settle", grant=grant).status_code,
        _ask(it, "settle", grant=grant).status_code,
    ]

    assert [404, 200, 404] == statuses


def test_an_account_of_a_provider_may_be_on_the_way(it: Gate) -> None:
    reply = _ask(it, "acquire", OTHER, provider="openai", model="gpt-4o").json()
    refused = _ask(
        it, "settle", OTHER, grant=reply["grant"], refused=True, retry_after_s=9
    )
    after = _ask(it, "acquire", OTHER, provider="openai", model="gpt-4o")
    with it.client(
        OTHER,
    ) as client:
        at_once = client.post(
            "/v1/ratekeeper/acquire",
            json={"provider": "openai"},
            headers={"x-ratekeeper-max-wait": "0s"},
        )
    del after

    assert "openai/UPSTREAM_KEY" == reply["account"]
    assert 200 == refused.status_code
    assert 429 == at_once.status_code
    assert "10 rpm" not in at_once.text


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"take": {"requests": 1}}, "counts tokens"),
        ({"take": {"tokens": -1}}, "take: 'tokens': expected a whole number, from 0"),
        ({"take": {"tokens": "1"}}, "take: 'tokens': expected a whole number, from 0"),
        ({"take": {"token": 5, "usd": "0.1"}}, "did you mean 'tokens'"),
        ({"take": {"usd": "-1"}}, "take: 'usd': expected a sum of money as text"),
        ({"take": {"concurrent": 1}}, "leave it out"),
        ({"tokens": 5}, "unknown field"),
        ({"take": {"tokens": 1, "usd": 0.5}}, "Expected"),
        ({"take": {"tokens": 1, "usd": "1"}, "hold": "soon"}, "hold"),
    ],
)
def test_what_is_wrong_is_said(it: Gate, body: dict[str, Any], says: str) -> None:
    reply = _ask(it, "acquire", **body)

    assert 400 == reply.status_code
    assert says in reply.text


def test_strangers_and_other_verbs_are_refused(it: Gate) -> None:
    with it.client() as client:
        statuses = [
            _ask(it, "acquire", "rk-nobody").status_code,
            _ask(it, "steal").status_code,
            client.get("/v1/ratekeeper/acquire").status_code,
        ]

    assert [401, 404, 405] == statuses


def test_the_desk_reads_no_more_than_it_needs(it: Gate) -> None:
    with it.client() as client:
        reply = client.post("/v1/ratekeeper/acquire", content=b" " * 100_000)

    assert 413 == reply.status_code
    assert "65,536" in reply.text


def test_a_grant_that_reaches_nobody_is_given_back(tmp_path: Path) -> None:
    """Its caller hung up just as it was granted, and never learned its name."""
    keys = [client_key(limits=["1 concurrent"])]
    config = gates.config(tmp_path, {"openai": account("http://127.0.0.1:9/v1")}, keys)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(_: Any) -> None:
        raise ConnectionError

    async def play() -> tuple[int, list[object]]:
        gateway = Gateway(config, environ=gates.ENVIRON)
        await gateway.start()
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/ratekeeper/acquire",
            "raw_path": b"/v1/ratekeeper/acquire",
            "query_string": b"",
            "headers": [(b"authorization", f"Bearer {gates.SECRET}".encode())],
            "ratekeeper.wire": Wire(expects_continue=False),
        }
        with pytest.raises(ConnectionError):
            await gateway(scope, receive, send)
        caller = gateway.roster.caller(gates.SECRET, 0)
        assert caller is not None
        rows = gateway.store.status(*caller.targets[0])
        out = len(gateway.desk._open)
        await gateway.close()
        return out, [row.used for row in rows]

    assert (0, [0]) == asyncio.run(play())
