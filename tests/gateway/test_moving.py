"""Calls that stand in line for one account, and are served by another."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ratekeeper.core.units import SECOND
from tests.gateway import gates
from tests.gateway.gates import Behind, Gate, account, asgi, behind, client_key, gate

CHAT = "/v1/chat/completions"
BODY = {"model": "gpt-4o", "max_tokens": 5, "messages": gates.MESSAGES}


@pytest.fixture
def one() -> Iterator[Behind]:
    with behind() as it:
        yield it


@pytest.fixture
def two() -> Iterator[Behind]:
    with behind() as it:
        yield it


class Waiting:
    """A caller in a thread of its own."""

    def __init__(self, it: Gate, **headers: str) -> None:
        self.reply: httpx2.Response | None = None
        self.done_s = 0.0
        self._it, self._headers = it, headers
        self._thread = threading.Thread(target=self._call)
        self._thread.start()

    def _call(self) -> None:
        with self._it.client() as client:
            self.reply = client.post(CHAT, json=BODY, headers=self._headers)
            self.done_s = time.monotonic()

    @property
    def status(self) -> int:
        self._thread.join()
        assert self.reply is not None
        return self.reply.status_code


def _gate(
    folder: Path,
    one: dict[str, Any],
    two: dict[str, Any],
    **said: Any,
) -> Any:
    keys = [client_key(max_wait="20s", **said)]
    return gate(gates.config(folder, {"openai": {"accounts": [one, two]}}, keys))


def _set_aside(it: Gate, at: int, for_s: float) -> None:
    account = it.gateway.roster.accounts[at]

    def do() -> None:
        account.standing.until_us = it.gateway.now_us() + int(for_s * SECOND)
        account.standing.why = "billing"
        it.gateway.tell_of(account)

    it.do(do)


def _until(holds: Callable[[], bool], within_s: float = 5.0) -> bool:
    end = time.monotonic() + within_s
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    return holds()


def _crowds(it: Gate) -> list[int]:
    return [len(account.crowd) for account in it.gateway.roster.accounts]


def _stand(it: Gate, *crowds: int) -> Waiting:
    """Come to a line, and be there before anybody else comes."""
    caller = Waiting(it)
    assert _until(lambda: [*crowds] == _crowds(it))
    return caller


def test_calls_in_the_line_of_an_account_that_closes_go_to_another(
    tmp_path: Path, one: Behind, two: Behind
) -> None:
    """They are served there by when they came, not behind whoever stood there."""
    accounts = (
        account(one.url, "1 request/2s", name="one"),
        account(two.url, "1 request/2s", name="two"),
    )
    with _gate(tmp_path, *accounts) as it:
        begun = time.monotonic()
        assert [200, 200] == [Waiting(it).status, Waiting(it).status]
        first = _stand(it, 1, 0)
        second = _stand(it, 1, 1)
        _set_aside(it, 0, 60)
        assert _until(lambda: [0, 2] == _crowds(it))
        statuses = [first.status, second.status]

    assert [200, 200] == statuses
    assert 1 == one.requests
    assert first.done_s < second.done_s
    assert 1.9 < first.done_s - begun < 4.9  # the first time that one opens


def test_calls_in_line_go_to_an_account_that_opens(
    tmp_path: Path, one: Behind, two: Behind
) -> None:
    accounts = (
        account(one.url, "1 request/15s", name="one"),
        account(two.url, name="two"),
    )
    with _gate(tmp_path, *accounts) as it:
        _set_aside(it, 1, 60)
        begun = time.monotonic()
        assert 200 == Waiting(it).status
        waiting = _stand(it, 1, 0)
        _set_aside(it, 1, 0.5)
        status = waiting.status

    assert 200 == status
    assert 1 == two.requests
    assert waiting.done_s - begun < 14  # before there is room where it stood


def test_calls_go_elsewhere_when_a_limit_is_paused(tmp_path: Path, two: Behind) -> None:
    """Whoever stands in a line that a refusal stops for long need not stay there."""
    go_on = threading.Event()

    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body", False):
            pass
        await asyncio.to_thread(go_on.wait, 10)
        headers = [(b"content-length", b"2"), (b"retry-after", b"10")]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    with asgi(refusing) as url:
        accounts = (
            account(url, "1 request/2s", name="one"),
            account(two.url, "1 request/2s", name="two"),
        )
        with _gate(tmp_path, *accounts) as it:
            begun = time.monotonic()
            refused = Waiting(it)
            assert _until(lambda: it.gateway.open_calls == 1)
            assert 200 == Waiting(it).status
            waiting = _stand(it, 1, 0)
            go_on.set()
            statuses = [refused.status, waiting.status]

    assert [200, 200] == statuses
    assert waiting.done_s - begun < 9.9  # before what was paused goes on


def test_a_call_that_one_account_cannot_serve_in_time_is_served_by_another(
    tmp_path: Path, one: Behind, two: Behind
) -> None:
    """The account with room opens before the caller's patience ends."""
    accounts = (
        account(one.url, "1 request/minute", name="one"),
        account(two.url, name="two"),
    )
    with _gate(tmp_path, *accounts) as it:
        _set_aside(it, 1, 2)
        statuses = [Waiting(it).status for _ in range(2)]

    assert [200, 200] == statuses
    assert [1, 1] == [one.requests, two.requests]


def test_a_call_that_no_account_can_serve_in_time_is_told_the_least_wait(
    tmp_path: Path, one: Behind, two: Behind
) -> None:
    accounts = (
        account(one.url, "1 request/2 minutes", name="one"),
        account(two.url, "1 request/minute", name="two"),
    )
    with _gate(tmp_path, *accounts) as it:
        statuses = [Waiting(it).status for _ in range(2)]
        refused = Waiting(it)
        statuses.append(refused.status)

    assert [200, 200, 429] == statuses
    assert refused.reply is not None
    assert 55 < int(refused.reply.headers["retry-after"]) <= 62


def test_a_call_too_large_for_one_account_waits_for_a_larger_one(
    tmp_path: Path, one: Behind, two: Behind
) -> None:
    accounts = (
        account(one.url, "10 tokens/minute", name="one"),
        account(two.url, name="two"),
    )
    with _gate(tmp_path, *accounts) as it:
        _set_aside(it, 1, 0.5)
        status = Waiting(it).status

    assert 200 == status
    assert [0, 1] == [one.requests, two.requests]


def test_a_call_too_large_for_every_account_is_told_so_at_once(
    tmp_path: Path, one: Behind, two: Behind
) -> None:
    accounts = (
        account(one.url, "10 tokens/minute", name="one"),
        account(two.url, "12 tokens/minute", name="two"),
    )
    with _gate(tmp_path, *accounts) as it:
        waiting = Waiting(it)
        status = waiting.status

    assert 400 <= status < 500
    assert waiting.reply is not None
    assert "larger than" in waiting.reply.text


def test_a_limit_of_the_caller_is_not_looked_for_elsewhere(
    tmp_path: Path, one: Behind, two: Behind
) -> None:
    accounts = (account(one.url, name="one"), account(two.url, name="two"))
    with _gate(tmp_path, *accounts, limits=["1 request/minute"]) as it:
        statuses = [Waiting(it).status for _ in range(2)]

    assert [200, 429] == statuses


def test_a_saturated_provider_is_relieved_by_its_fallback(
    tmp_path: Path, one: Behind, two: Behind
) -> None:
    providers = {
        "openai": account(one.url, "1 request/minute"),
        "holysheep": account(two.url),
    }
    fallbacks = {"gpt-4o": ["openai/gpt-4o", "holysheep/gpt-4o-mini"]}
    keys = [client_key(max_wait="2s")]
    config = gates.config(tmp_path, providers, keys, fallbacks=fallbacks)
    with gate(config) as it:
        models = []
        for _ in range(2):
            waiting = Waiting(it)
            assert 200 == waiting.status
            assert waiting.reply is not None
            models.append(waiting.reply.json()["model"])

    assert ["gpt-4o", "gpt-4o-mini"] == models


@pytest.mark.parametrize("limit", ["1 request/minute", "24 tokens/minute"])
def test_a_fallback_to_another_model_of_the_same_account_is_taken(
    tmp_path: Path, one: Behind, limit: str
) -> None:
    """What one model has used up, or is too small for, another may have room for."""
    models = {"gpt-4o": [limit], "gpt-4o-mini": ["1000 rpm"]}
    providers = {"openai": {"accounts": [account(one.url)], "models": models}}
    fallbacks = {"gpt-4o": ["openai/gpt-4o", "openai/gpt-4o-mini"]}
    keys = [client_key(max_wait="1s")]
    config = gates.config(tmp_path, providers, keys, fallbacks=fallbacks)
    with gate(config) as it, it.client() as client:
        sizes = [5, 5, 50]  # the last one is larger than the limit of tokens
        models_of = [it.chat(client, max_tokens=size).json()["model"] for size in sizes]

    assert ["gpt-4o", "gpt-4o-mini", "gpt-4o-mini"] == models_of


def _backed_up(folder: Path, first: str, second: str, listed: list[str]) -> Any:
    providers = {"openai": account(first), "backup": account(second)}
    keys = [client_key(limits=["$10/day"], max_wait="5s")]
    fallbacks = {"gpt-4o": listed}
    return gate(gates.config(folder, providers, keys, fallbacks=fallbacks))


def test_a_fallback_without_a_price_is_passed_over(
    tmp_path: Path, one: Behind, two: Behind
) -> None:
    listed = ["backup/my-own", "openai/gpt-4o"]
    with _backed_up(tmp_path, one.url, two.url, listed) as it:
        _set_aside(it, 0, 0.3)
        waited = Waiting(it).status
        at_once = Waiting(it).status

    assert [200, 200] == [waited, at_once]
    assert [2, 0] == [one.requests, two.requests]


def test_a_failure_is_told_as_such_where_the_fallback_has_no_price(
    tmp_path: Path, two: Behind
) -> None:
    with behind("openai", "status=500 @ 1") as failing:
        listed = ["openai/gpt-4o", "backup/my-own"]
        with _backed_up(tmp_path, failing.url, two.url, listed) as it:
            failed = Waiting(it).status
            _set_aside(it, 0, 60)
            waiting = Waiting(it)
            set_aside = waiting.status

    assert [500, 503] == [failed, set_aside]
    assert waiting.reply is not None
    assert 50 < int(waiting.reply.headers["retry-after"]) <= 60


def test_where_no_fallback_has_a_price_the_first_that_lacks_is_told(
    tmp_path: Path, one: Behind, two: Behind
) -> None:
    listed = ["openai/one-of-ours", "backup/my-own"]
    with _backed_up(tmp_path, one.url, two.url, listed) as it:
        waiting = Waiting(it)
        status = waiting.status

    assert 403 == status
    assert waiting.reply is not None
    assert "one-of-ours" in waiting.reply.text
