"""The desk: grants for programs that keep an HTTP client of their own."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


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


AT_ONCE = {"x-ratekeeper-max-wait": "0s"}


def _at_once(it: Gate, key: str = gates.SECRET, **body: Any) -> httpx2.Response:
    with it.client(key) as client:
        asked = {**OPENAI, **body}
        return client.post("/v1/ratekeeper/acquire", json=asked, headers=AT_ONCE)


OPENAI: dict[str, Any] = {"provider": "openai", "model": "gpt-4o"}


def test_an_account_of_a_provider_may_be_on_the_way(it: Gate) -> None:
    reply = _ask(it, "acquire", OTHER, **OPENAI).json()
    refused = _ask(
        it, "settle", OTHER, grant=reply["grant"], refused=True, retry_after_s=9
    )
    at_once = _at_once(it, OTHER)

    assert "openai/UPSTREAM_KEY" == reply["account"]
    assert 200 == refused.status_code
    assert 429 == at_once.status_code
    assert 8 <= int(at_once.headers["retry-after"]) <= 9  # a settled one says 6
    assert "10 rpm" not in at_once.text


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Gate]:
    """Run a gateway with two keys of no team, and no limits but an account's."""
    keys = [client_key(), client_key("b", OTHER)]
    limits = ("1000 rpm", "10k tokens/minute", "50 concurrent")
    providers = {"openai": account("http://127.0.0.1:9/v1", *limits)}
    with gate(gates.config(tmp_path, providers, keys)) as running:
        yield running


SOME: dict[str, Any] = {"take": {"tokens": 1}}


def test_a_refusal_that_one_reports_keeps_others_out_for_a_minute(two: Gate) -> None:
    grants = [_ask(two, "acquire", **OPENAI, **SOME).json()["grant"] for _ in range(2)]
    for grant in grants:
        _ask(two, "settle", grant=grant, refused=True, retry_after_s=2_592_000)
    others, own = _at_once(two, OTHER, **SOME), _at_once(two, **SOME)

    assert [429, 429] == [others.status_code, own.status_code]
    assert 55 <= int(others.headers["retry-after"]) <= 60
    assert 3595 <= int(own.headers["retry-after"]) <= 3600
    assert "as was reported" in own.text


def test_who_has_reported_too_many_refusals_waits_alone(two: Gate) -> None:
    now = two.gateway.now_us()
    for ago_s in range(120, 0, -1):
        two.gateway.desk._hearsay.heard(
            "key/app", "openai/UPSTREAM_KEY", "other", 10**9, now - ago_s * 1_000_000
        )
    grant = _ask(two, "acquire", **OPENAI, **SOME).json()["grant"]
    _ask(two, "settle", grant=grant, refused=True, retry_after_s=1.5)
    others = _ask(two, "acquire", OTHER, **OPENAI, **SOME).json()
    own = _ask(two, "acquire", **OPENAI, **SOME).json()

    assert others["waited_ms"] < 700
    assert 700 <= own["waited_ms"] <= 2000


def test_what_one_has_used_keeps_others_out_for_two_minutes(two: Gate) -> None:
    grant = _ask(two, "acquire", **OPENAI, **SOME).json()["grant"]
    _ask(two, "settle", grant=grant, used={"tokens": 10**9})
    others = _at_once(two, OTHER, **SOME)

    assert 429 == others.status_code
    assert 60 < int(others.headers["retry-after"]) <= 125  # a window is a bit wider


def test_more_than_a_call_can_come_to_is_no_amount(two: Gate) -> None:
    grant = _ask(two, "acquire", **OPENAI, **SOME).json()["grant"]
    refused = _ask(two, "settle", grant=grant, used={"tokens": 10**9 + 1})
    settled = _ask(two, "settle", grant=grant)

    assert 400 == refused.status_code
    assert "used: 'tokens': expected a whole number" in refused.text
    assert 200 == settled.status_code


def test_money_comes_back_where_a_call_was_refused(it: Gate) -> None:
    grant = _ask(it, "acquire", take=_take()).json()["grant"]
    _ask(it, "settle", grant=grant, refused=True)
    caller = it.gateway.roster.caller(gates.SECRET, 0)
    assert caller is not None
    used = [row.used for row in it.gateway.store.status(*caller.targets[0])]

    assert [1, 400, 0, 0] == used


def test_a_slot_of_an_account_is_held_for_a_quarter_of_an_hour_at_most(
    two: Gate,
) -> None:
    held = _ask(two, "acquire", **OPENAI, **SOME, hold="1 day").json()
    own = _ask(two, "acquire", **SOME, hold="1 day").json()

    assert 900 == held["expires_in_s"]
    assert 86_400 == own["expires_in_s"]


def test_nobody_has_all_the_grants_there_are(two: Gate) -> None:
    two.gateway.desk.places.resize(5)
    grants = [_ask(two, "acquire", **SOME) for _ in range(3)]
    other = _ask(two, "acquire", OTHER, **SOME)
    _ask(two, "settle", grant=grants[0].json()["grant"])
    again = _ask(two, "acquire", **SOME)

    assert [200, 200, 503] == [one.status_code for one in grants]
    assert "too many grants are out" in grants[2].text
    assert [200, 200] == [other.status_code, again.status_code]


def test_a_grant_that_was_not_given_takes_no_place(two: Gate) -> None:
    two.gateway.desk.places.resize(1)
    refused = _ask(two, "acquire", provider="nobody")

    assert 404 == refused.status_code
    assert 200 == _ask(two, "acquire", **SOME).status_code


@pytest.mark.parametrize("model", ["x" * 256, "gpt\n4", "\x1b[31m"])
def test_what_is_no_name_is_no_model(two: Gate, model: str) -> None:
    reply = _ask(two, "acquire", provider="openai", model=model, **SOME)

    assert 400 == reply.status_code
    assert "is no name" in reply.text


def test_a_key_named_like_a_team_has_nothing_of_the_team(tmp_path: Path) -> None:
    keys = [client_key(team="ta"), client_key("team/ta", OTHER)]
    with gate(gates.config(tmp_path, {}, keys, teams={"ta": {}})) as it:
        grant = _ask(it, "acquire").json()["grant"]
        stolen = _ask(it, "settle", OTHER, grant=grant)

        assert 404 == stolen.status_code


def test_a_refusal_lets_those_in_line_look_elsewhere(tmp_path: Path) -> None:
    """They wait for the account that is refused while another has room."""
    with gates.behind() as provider:
        accounts = [
            account(provider.url, "1 concurrent", name=name) for name in ("x", "y")
        ]
        config = gates.config(tmp_path, {"openai": {"accounts": accounts}})
        with gate(config) as it, it.client() as client:
            grants = [_ask(it, "acquire", **OPENAI).json() for _ in range(2)]
            with ThreadPoolExecutor(1) as pool:
                chat = pool.submit(it.chat, client)
                crowds = [one.crowd for one in it.gateway.roster.accounts]
                _until(lambda: any(len(one) for one in crowds))
                stands = next(at for at, one in enumerate(crowds) if len(one))
                name = it.gateway.roster.accounts[stands].name
                here = next(one for one in grants if one["account"] == name)
                there = next(one for one in grants if one["account"] != name)
                _ask(it, "settle", grant=there["grant"])
                _ask(it, "settle", grant=here["grant"], refused=True, retry_after_s=30)
                status = chat.result(10).status_code

    assert 200 == status


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


async def _unheard(folder: Path, body: bytes, pause_s: float) -> tuple[int, int]:
    """Ask for a grant and hang up; return how many are out, and slots in use."""
    keys = [client_key(limits=["1 concurrent"])]
    config = gates.config(folder, {"openai": account("http://127.0.0.1:9/v1")}, keys)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(_: Any) -> None:
        await asyncio.sleep(pause_s)
        raise ConnectionError

    gateway = Gateway(config, environ=gates.ENVIRON)
    await gateway.start()
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/ratekeeper/acquire",
        "raw_path": b"/v1/ratekeeper/acquire",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {gates.SECRET}".encode())],
        "ratekeeper.wire": Wire(),
    }
    with pytest.raises(ConnectionError):
        await gateway(scope, receive, send)
    caller = gateway.roster.caller(gates.SECRET, 0)
    assert caller is not None
    (row,) = gateway.store.status(*caller.targets[0])
    out = len(gateway.desk._open) + gateway.desk.places.bytes
    await gateway.close()
    return out, int(row.used)


def test_a_grant_that_reaches_nobody_is_given_back(tmp_path: Path) -> None:
    """Its caller hung up just as it was granted, and never learned its name."""
    assert (0, 0) == asyncio.run(_unheard(tmp_path, b"{}", 0))


def test_a_grant_whose_hold_ends_before_it_reaches_anybody_ends_once(
    tmp_path: Path,
) -> None:
    assert (0, 0) == asyncio.run(_unheard(tmp_path, b'{"hold": "10ms"}', 0.05))


def test_what_limits_only_watch_need_not_be_said(tmp_path: Path) -> None:
    watched = [{"limit": one, "shadow": True} for one in ("10 tpm", "$1/day")]
    keys = [client_key(limits=["3 rpm", *watched], max_wait="0s")]
    with gate(gates.config(tmp_path, {}, keys)) as it:
        unsaid = _ask(it, "acquire")
        said = _ask(it, "acquire", take={"tokens": 400, "usd": "2"})

    assert [200, 200] == [unsaid.status_code, said.status_code]
