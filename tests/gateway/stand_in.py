"""A small gateway to test the server with, and a caller who speaks raw HTTP."""

from __future__ import annotations

import asyncio
import socket
import threading
import urllib.parse
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable


class StandIn:
    """Has what the server needs of a gateway; answers a call with what it saw of it.

    `/echo` takes the body first, but not before `after_s`, `/early` does not, and has
    `unread` bytes of it thrown away; `/stream` sends a chunk of `size` bytes each
    `every_s`, `count` times; `/hold` answers when it is let go on; `/fail` raises.
    `on_gone` is set in every call.
    """

    def __init__(self) -> None:
        self.is_draining = False
        self.configs: list[Any] = []
        self.calls: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.gone = threading.Event()
        self.entered = threading.Event()
        self.go_on: asyncio.Event | None = None
        self.is_closed = False
        self.loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.go_on = asyncio.Event()

    async def close(self) -> None:
        self.is_closed = True

    def reload(self, config: Any) -> None:
        self.configs.append(config)

    def let_go_on(self) -> None:
        assert self.loop is not None
        assert self.go_on is not None
        self.loop.call_soon_threadsafe(self.go_on.set)

    def _lost(self) -> None:
        self.gone.set()
        assert self.go_on is not None
        self.go_on.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls.append(scope)
        scope["ratekeeper.wire"].on_gone = self._lost
        asked = dict(urllib.parse.parse_qsl(scope["query_string"].decode()))
        self.entered.set()
        path = scope["path"]
        if path != "/nobody":
            scope["ratekeeper.wire"].known()
        if path == "/stream":
            await self._stream(scope, send, **{k: float(v) for k, v in asked.items()})
        elif path == "/early":
            if "unread" in asked:
                scope["ratekeeper.wire"].most_unread = int(asked["unread"])
            await _answer(send, b"early", 413)
        elif path == "/fail":
            raise ValueError(asked["key"])
        elif path in _ENDS:
            await _begin(send, 20)
            await send({"type": "http.response.body", "body": b"1", "more_body": True})
            await _ENDS[path](scope["ratekeeper.wire"], send)
        elif path == "/bad-header":
            await _answer(send, b"", name=b"x-it", value=b"a\r\nset-cookie: b")
        elif path == "/readyz":
            await _answer(send, b"", 503 if self.is_draining else 200)
        else:
            if "after_s" in asked:
                await asyncio.sleep(float(asked["after_s"]))
            await self._echo(scope, receive, send)

    async def _echo(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        if scope["path"] == "/hold":
            assert self.go_on is not None
            await self.go_on.wait()
        await _answer(send, scope["raw_path"] + b" " + body)

    async def _stream(
        self,
        scope: Any,
        send: Any,
        size: float = 10,
        count: float = 3,
        every_s: float = 0.0,
    ) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(int(count)):
            await asyncio.sleep(every_s)
            if scope["ratekeeper.wire"].is_gone:
                return
            chunk = b"x" * int(size)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})


async def _answer(
    send: Any,
    body: bytes,
    status: int = 200,
    *,
    name: bytes = b"content-type",
    value: bytes = b"text/plain",
) -> None:
    headers = [(name, value), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _begin(send: Any, length: int) -> None:
    headers = [(b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _fail(wire: Any, send: Any) -> None:
    raise ValueError


async def _say_less(wire: Any, send: Any) -> None:
    await send({"type": "http.response.body", "body": b"2"})


async def _say_more(wire: Any, send: Any) -> None:
    await send({"type": "http.response.body", "body": b"x" * 20})


async def _cut(wire: Any, send: Any) -> None:
    wire.cut()
    await send({"type": "http.response.body", "body": b"x" * 19})


async def _leave_off(wire: Any, send: Any) -> None:
    pass


# Ways to end an answer that has begun, none of them good.
_ENDS = {
    "/fails-late": _fail,
    "/says-less": _say_less,
    "/says-more": _say_more,
    "/cuts": _cut,
    "/leaves-off": _leave_off,
}


class Caller:
    """A raw connection to a URL."""

    def __init__(
        self, url: str, *, buffer: int | None = None, wait_s: float = 10.0
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        self.socket = socket.socket()
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(wait_s)
        self.socket.connect((parts.hostname, parts.port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Self:
        self.socket.sendall(data)
        return self

    def read(self, enough: Callable[[bytes], bool] = lambda _: False) -> bytes:
        """Read until it is enough, or the other side has closed."""
        data = b""
        while not enough(data):
            try:
                piece = self.socket.recv(65536)
            except ConnectionResetError:
                break
            if not piece:
                break
            data += piece
        return data


def ends_with(text: bytes) -> Callable[[bytes], bool]:
    return lambda data: data.endswith(text)
