"""What attempts cost their caller, and how long and how often they are made."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ratekeeper.client.pool import Silence
from ratekeeper.core.units import SECOND
from ratekeeper.gateway import refused
from ratekeeper.providers.facts import Kind, Verdict
from tests.faults.scripted import Asked, scripted
from tests.gateway import gates
from tests.gateway.gates import Behind, Gate, account, behind, client_key, gate


@pytest.fixture
def upstream() -> Iterator[Behind]:
    with behind() as it:
        yield it


def _gate(folder: Path, *ones: Behind, **terms: Any) -> Any:
    accounts = [account(one.url, name=f"at-{at}") for at, one in enumerate(ones)]
    providers = {"openai": {"accounts": accounts}}
    return gate(gates.config(folder, providers, [client_key(**terms)], max_wait="0s"))


def _used(it: Gate) -> list[int | Decimal]:
    """Return what each limit of the caller counts."""
    caller = it.gateway.roster.caller(gates.SECRET, 0)
    assert caller is not None
    status = it.gateway.store.status
    return [one.used for of in caller.targets for one in status(*of)]


def _patient(client: httpx2.Client, said: str) -> int:
    body = {"model": "gpt-4o", "max_tokens": 5, "messages": gates.MESSAGES}
    headers = {"x-ratekeeper-max-wait": said}
    return client.post("/v1/chat/completions", json=body, headers=headers).status_code


def test_a_caller_may_ask_for_no_longer_wait_than_its_key_says(
    tmp_path: Path, upstream: Behind
) -> None:
    terms = {"limits": ["1 request/1s"], "max_wait": "50ms"}
    with _gate(tmp_path, upstream, **terms) as it, it.client() as client:
        statuses = [_patient(client, "5s") for _ in range(2)]

    assert [200, 429] == statuses


def test_where_nobody_says_how_long_a_caller_may_ask_for_a_longer_wait(
    tmp_path: Path, upstream: Behind
) -> None:
    with (
        _gate(tmp_path, upstream, limits=["1 request/1s"]) as it,
        it.client() as client,
    ):
        statuses = [_patient(client, "5s") for _ in range(2)]

    assert [200, 200] == statuses


def test_a_call_that_goes_on_elsewhere_is_one_request_of_its_caller(
    tmp_path: Path, upstream: Behind
) -> None:
    with (
        behind("openai", "status=500 @ 1") as failing,
        _gate(tmp_path, failing, upstream, limits=["10 rpm"]) as it,
        it.client() as client,
    ):
        status = it.chat(client).status_code
        used = _used(it)

    assert (200, 1, 1) == (status, failing.requests, upstream.requests)
    assert [1] == used


def test_an_overload_costs_no_tokens_and_the_most_it_may_have_cost(
    tmp_path: Path,
) -> None:
    """Nobody knows what a provider charges for it; docs/budgets.md says so."""
    limits = ["10 rpm", "10k tpm", "$1/day"]
    with (
        behind("openai", "status=529 @ 1") as overloaded,
        _gate(tmp_path, overloaded, limits=limits) as it,
        it.client() as client,
    ):
        status = it.chat(client, max_tokens=1000).status_code
        requests, tokens, dollars = _used(it)

    assert 529 == status
    assert (1, 0) == (requests, tokens)
    assert dollars >= Decimal("0.01")  # 1000 tokens of output at $10 a million


def test_answers_pay_for_retries(tmp_path: Path, upstream: Behind) -> None:
    with _gate(tmp_path, upstream) as it, it.client() as client:
        it.gateway.budget.left = 0
        for _ in range(3):
            it.chat(client)
        client.get("/v1/models/nobody-has-made-this")
        left = it.gateway.budget.left

    assert 3 == left


def test_a_method_that_is_not_served_is_told_which_are(
    tmp_path: Path, upstream: Behind
) -> None:
    with _gate(tmp_path, upstream) as it, it.client() as client:
        answer = client.request("OPTIONS", "/v1/models")

    assert 405 == answer.status_code
    assert "GET" in answer.headers["allow"].split(", ")
    assert "OPTIONS" not in answer.headers["allow"]


def test_a_provider_is_asked_not_to_pack_its_answers(tmp_path: Path) -> None:
    """What is packed in a way that we cannot read is not metered."""

    def script(sock: socket.socket, asked: Asked) -> None:
        del asked
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    with scripted(script) as provider:
        config = gates.config(tmp_path, {"openai": account(provider.url)})
        with gate(config) as it, it.client() as client:
            it.chat(client)
    (asked,) = provider.asked

    assert b"\r\naccept-encoding: identity\r\n" in asked.head.lower() + b"\r\n"
    assert 1 == asked.names.count(b"accept-encoding")


@pytest.mark.parametrize(
    ("hint_us", "told_us"), [(None, SECOND), (0, SECOND), (20_000, 20_000)]
)
def test_nobody_is_told_to_come_back_in_no_time(
    hint_us: int | None, told_us: int
) -> None:
    verdict = Verdict(kind=Kind.THROTTLED, retry=True, retry_after_us=hint_us)

    assert told_us == refused.of_account(verdict, "openai", 0).retry_after_us


def test_every_reason_for_silence_has_words_for_the_caller() -> None:
    told = {refused.of_silence(why, "openai").message for why in Silence}

    assert {*Silence} == {*refused._SILENCE}
    assert len(Silence) == len(told)
