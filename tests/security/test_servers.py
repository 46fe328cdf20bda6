"""A hostile server gets no key that is not its own, no memory and no time."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from typing import Any

import httpx2
import pytest

import ratekeeper
from ratekeeper import AuthenticationError, ProviderError
from tests.client import clients
from tests.client.wire import Script, Wire, http

KEYS = {"x-api-key": "sk-canary", "api-key": "sk-canary", "authorization": "sk-canary"}


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest) -> clients.Opened:
    return clients.opener(request.param)


def _post(kind: str, url: str) -> httpx2.Response:
    if kind == "sync":
        with ratekeeper.http_client("anthropic", "9k rpm") as client:
            return client.post(url, headers=KEYS, json={})

    async def post() -> httpx2.Response:
        async with ratekeeper.async_http_client("anthropic", "9k rpm") as client:
            return await client.post(url, headers=KEYS, json={})

    return asyncio.run(post())


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_key_follows_a_redirect_to_another_host(kind: str, status: int) -> None:
    with Wire(http(200, b"{}")) as other:
        away = f"location: {other.url}/messages"
        with Wire(http(status, b"", away)) as first:
            answer = _post(kind, f"{first.url}/messages")

            assert b"sk-canary" in first.requests[0]

        assert 200 == answer.status_code
        assert b"sk-canary" not in other.requests[0]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_key_follows_a_redirect_on_the_same_host(kind: str) -> None:
    with Wire(http(307, b"", "location: /v2/messages"), http(200, b"{}")) as wire:
        _post(kind, f"{wire.url}/messages")

        assert 3 == wire.requests[1].count(b"sk-canary")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_redirect_to_nowhere_is_an_error_of_http(kind: str) -> None:
    with (
        Wire(http(307, b"", "location: http://[::1/")) as wire,
        pytest.raises(httpx2.RemoteProtocolError),
    ):
        _post(kind, f"{wire.url}/messages")


def test_no_cookie_is_kept(make: clients.Opened) -> None:
    cookies = [http(200, b"{}", f"set-cookie: c{n}=1; path=/") for n in range(5)]
    with Wire(*cookies) as wire, make("openai", base_url=wire.url) as ai:
        for _ in cookies:
            ai.do(lambda client: client.request("GET", "/models"))

        assert 0 == len(ai.client._http.cookies.jar)
    assert b"cookie" not in b"".join(wire.requests).lower()


@pytest.mark.parametrize("status", [401, 500])
def test_an_error_without_end_is_not_read_to_the_end(
    make: clients.Opened, status: int
) -> None:
    head = f"HTTP/1.1 {status} No\r\ncontent-length: {1 << 40}\r\n\r\n".encode()
    part = b'{"error": {"message": "' + b"x" * (1 << 20)
    wire = Wire(Script(head, *[part] * 64, end="close"))
    with wire, make("openai", base_url=wire.url, attempts=1) as ai:
        tracemalloc.start()
        with pytest.raises(ProviderError) as caught:
            ai.chat()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert status == caught.value.status
    assert (status == 401) is isinstance(caught.value, AuthenticationError)
    assert 16 << 20 > peak


def test_a_large_answer_that_is_no_json_is_kept_as_little(make: clients.Opened) -> None:
    page = b"<html>" + b"\xff" * (8 << 20)
    with Wire(http(200, page)) as wire, make("openai", base_url=wire.url) as ai:
        with pytest.raises(ProviderError) as caught:
            ai.chat()

        assert 2000 >= len(caught.value.body)


def test_a_key_at_the_edge_of_what_is_kept_is_masked(make: clients.Opened) -> None:
    told: Any = {"error": {"message": f"{clients.KEY} " * 60_000}}
    answer = http(400, json.dumps(told).encode())
    with Wire(answer) as wire, make("openai", base_url=wire.url) as ai:
        with pytest.raises(ProviderError) as caught:
            ai.chat()

        assert clients.KEY[:12] not in caught.value.body
