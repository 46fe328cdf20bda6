"""Exchange: one request and its response on the wire, as ASGI has them.

It reads a body up to a cap, waits while watching whether the client is still there, and
hangs up where a fault asks for it. It knows nothing of providers or limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

TRANSPORT = "ratekeeper.transport"
"""Where the server keeps a connection's transport in `scope["state"]`."""

_UPLOAD_S = 60.0  # the longest a body may take to arrive
_CLOSING_S = 5.0  # the longest a hang-up waits for what was written before it


class ClientGone(Exception):
    """The client has left: nobody reads what would be sent."""


class BodyTooLarge(Exception):
    """The body is larger than the server reads."""


class Crowded(Exception):
    """So many bodies are arriving that there is no room for another byte."""


class Intake:
    """How much is read: of one body, and of all that arrive at a time."""

    def __init__(self, most: int, most_together: int) -> None:
        self.most = most
        self._room = most_together

    def take(self, size: int) -> None:
        """Make room for bytes; raises `Crowded` where there is none."""
        if size > self._room:
            raise Crowded
        self._room -= size

    def give_back(self, size: int) -> None:
        """Forget bytes that were taken."""
        self._room += size


class Exchange:
    """One HTTP request, and what is sent back for it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        self.headers[":path"] = self.path  # as HTTP/2 has it: for some, the model
        self._transport = scope.get("state", {}).get(TRANSPORT)
        self._receive = receive
        self._send = send
        self._gone: asyncio.Task[None] | None = None

    async def body(self, intake: Intake) -> bytes:
        """Read the whole body; raises `BodyTooLarge` as soon as that is certain."""
        said = self.headers.get("content-length", "")
        if said.isascii() and said.isdigit() and int(said[:20]) > intake.most:
            raise BodyTooLarge
        parts = bytearray()
        try:
            async with asyncio.timeout(_UPLOAD_S):
                while await self._part(parts, intake):
                    pass
        except TimeoutError:
            await self.hang_up()
            raise ClientGone from None
        finally:
            intake.give_back(len(parts))
        return bytes(parts)

    async def _part(self, parts: bytearray, intake: Intake) -> bool:
        """Read on; returns whether there is more."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        data = message.get("body", b"")
        if len(parts) + len(data) > intake.most:
            raise BodyTooLarge
        intake.take(len(data))
        parts += data
        return bool(message.get("more_body", False))

    async def pause(self, us: int) -> None:
        """Let time pass; raises `ClientGone` the moment the client leaves."""
        if us > 0:
            await asyncio.wait({self._watch()}, timeout=us / 1e6)
            self.check()

    def check(self) -> None:
        """Raise `ClientGone` where the client is known to have left."""
        if self._gone is not None and self._gone.done():
            raise ClientGone

    def _watch(self) -> asyncio.Task[None]:
        if self._gone is None:
            self._gone = asyncio.create_task(self._until_gone())
        return self._gone

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Send status and headers."""
        encoded = [(name.encode(), value.encode()) for name, value in headers]
        await self._send(
            {"type": "http.response.start", "status": status, "headers": encoded}
        )

    async def piece(self, data: bytes) -> None:
        """Send a part of the body; raises `ClientGone` if nobody is there."""
        self.check()
        await self._send(
            {"type": "http.response.body", "body": data, "more_body": True}
        )

    async def finish(self, data: bytes = b"") -> None:
        """Send the last part of the body."""
        await self._send({"type": "http.response.body", "body": data})

    async def reply(
        self, status: int, headers: Iterable[tuple[str, str]], body: bytes
    ) -> None:
        """Send a whole response."""
        await self.start(status, [*headers, ("content-length", str(len(body)))])
        await self.finish(body)

    async def hang_up(self) -> None:
        """Close the connection after what was written, the response unfinished."""
        if self._transport is None:
            return  # a server that is not ours: it closes what is left unfinished
        self._transport.close()
        done, _ = await asyncio.wait({self._watch()}, timeout=_CLOSING_S)
        if not done:
            self._transport.abort()
            await asyncio.wait({self._watch()})

    def close(self) -> None:
        """Stop watching."""
        if self._gone is not None:
            self._gone.cancel()
