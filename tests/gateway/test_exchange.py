"""What is written of an answer, and in how many pieces."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ratekeeper.gateway.listener import Listener


class Transport(asyncio.Transport):
    """Remembers each piece that it is given to send."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.sent: list[bytes] = []

    def write(self, data: Any) -> None:
        self.sent.append(bytes(data))

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        del high, low

    def pause_reading(self) -> None:
        """Do nothing: nobody sends."""

    def resume_reading(self) -> None:
        """Do nothing: nobody sends."""

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Do nothing: there is no connection."""


def pieces(method: str, length: bytes | None, *parts: bytes) -> list[bytes]:
    """Return in which pieces an answer of these parts is sent."""
    transport = Transport()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        headers = [] if length is None else [(b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def main() -> None:
        listener = Listener(app, asyncio.get_running_loop())
        protocol = listener.protocol()
        protocol.connection_made(transport)
        protocol.data_received(f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await asyncio.gather(*protocol.tasks)

    asyncio.run(main())
    return transport.sent


def test_a_short_answer_leaves_as_one_piece() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"

    assert [head + b"hello"] == pieces("GET", b"5", b"hello")
    assert [head + b"he", b"llo"] == pieces("GET", b"5", b"he", b"llo")


@pytest.mark.parametrize(
    ("method", "length"), [("HEAD", b"5"), ("HEAD", b"50000"), ("GET", b"0")]
)
def test_a_head_without_a_body_leaves_all_the_same(method: str, length: bytes) -> None:
    sent = pieces(method, length)

    assert [b"HTTP/1.1 200 OK\r\ncontent-length: " + length + b"\r\n\r\n"] == sent


def test_the_head_of_a_stream_does_not_wait_for_its_first_part() -> None:
    head, *chunks = pieces("GET", None, b"one", b"two")

    assert b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" == head
    assert [b"3\r\none\r\n", b"3\r\ntwo\r\n", b"0\r\n\r\n"] == chunks


def test_the_head_of_a_long_answer_does_not_wait_for_its_body() -> None:
    body = b"x" * 100_000
    head, sent = pieces("GET", b"100000", body)

    assert b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" == head
    assert body == sent
