"""The simulator as a server: what it is sent costs it little."""

from __future__ import annotations

import socket
import urllib.parse

import httpx2
import pytest

from ratekeeper.simulator import server
from ratekeeper.simulator.server import Simulator, serving

POST = b"POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer k\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
PART = 64 * 1024
ENDLESS = {
    "one header": (POST + b"x: ", b"x" * PART),
    "many headers": (POST, b"x: y\r\n" * (PART // 6)),
    "a path": (b"GET /", b"x" * PART),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"x: y\r\n" * (PART // 6)),
    "a chunk's extension": (CHUNKED + b"2;x=", b"x" * PART),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_a_head_without_end_is_hung_up_on(what: str) -> None:
    first, part = ENDLESS[what]
    with serving(Simulator()) as url:
        at = urllib.parse.urlsplit(url)
        with (
            socket.create_connection((at.hostname, at.port or 0), timeout=5) as wire,
            pytest.raises(ConnectionError),
        ):
            wire.sendall(first + part * 512)  # 32 MiB: above what buffers hold
        answer = httpx2.get(f"{url}/models", headers={"authorization": "Bearer k"})

    assert 200 == answer.status_code


def test_a_large_body_is_no_head() -> None:
    body = b'{"model": "m", "messages": [{"role": "user", "content": "%b"}]}'
    with serving(Simulator("openai", ["9 rpm"])) as url:
        answer = httpx2.post(
            f"{url}/chat/completions",
            headers={"authorization": "Bearer k", "transfer-encoding": "chunked"},
            content=iter([body % b"Hello"]),
        )
        large = httpx2.post(
            f"{url}/chat/completions",
            headers={"authorization": "Bearer k"},
            content=body % (b"x" * (server.MOST_BODY - 1000)),
        )

    assert [200, 200] == [answer.status_code, large.status_code]
