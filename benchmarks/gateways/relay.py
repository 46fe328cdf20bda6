"""The limit of the language: a relay of two `asyncio.Protocol`s on uvloop, no framework.

It finds where messages end and no more: heads are passed on as they came, but for the
provider's key. Good enough for callers that behave, which is all it meets here.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import TYPE_CHECKING, Any

import uvloop

from benchmarks.gateways.peer import SECRET, Launch, bearer
from benchmarks.gateways.process import OURS, python

if TYPE_CHECKING:
    from benchmarks.gateways.peer import Limits, Place

KEY = re.compile(rb"(?<=authorization: Bearer )[^\r]+")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
END = b"\r\n\r\n"
LAST = b"0\r\n\r\n"  # the last chunk


class Caller(asyncio.Protocol):
    """A caller's connection: one call at a time, each over an idle connection up."""

    def __init__(self, upstream: int, idle: list[Provider]) -> None:
        self._port = upstream
        self._idle = idle
        self._held = b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        at = self._held.find(END)
        if at < 0:
            return
        length = LENGTH.search(self._held, 0, at)
        if len(self._held) < at + len(END) + (int(length[1]) if length else 0):
            return
        call = KEY.sub(SECRET.encode(), self._held[:at], count=1) + self._held[at:]
        self._held = b""
        if self._idle:
            self._idle.pop().send(self, call)
        else:
            asyncio.get_running_loop().create_task(self._connect(call))

    async def _connect(self, call: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, provider = await loop.create_connection(
            lambda: Provider(self._idle), "127.0.0.1", self._port
        )
        provider.send(self, call)


class Provider(asyncio.Protocol):
    """A connection to the provider, which it keeps."""

    def __init__(self, idle: list[Provider]) -> None:
        self._idle = idle
        self._caller: Caller | None = None
        self._left: int | None = None  # bytes to come; None: it comes in chunks
        self._begins = True

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def send(self, caller: Caller, call: bytes) -> None:
        """Pass a call on, and its answer back."""
        self._caller, self._begins = caller, True
        self._transport.write(call)

    def data_received(self, data: bytes) -> None:
        assert self._caller is not None
        self._caller.transport.write(data)
        if self._begins:
            self._begins = False
            at = data.find(END)
            length = LENGTH.search(data, 0, at)
            self._left = int(length[1]) + at + len(END) if length else None
        if self._left is not None:
            self._left -= len(data)
        if self._left == 0 or (self._left is None and data.endswith(LAST)):
            self._caller = None
            self._idle.append(self)


class Relay:
    """Its row."""

    name = "bare asyncio.Protocol relay"

    def missing(self) -> str:
        return ""

    def launch(self, place: Place, limits: Limits) -> Launch:
        assert not limits.bind, "it has no limits"
        words = (str(place.port), str(place.upstream))
        return Launch(
            argv=python("benchmarks.gateways.relay", *words),
            callers=[bearer()],
            env=OURS,
        )


async def main(port: int, upstream: int) -> None:
    """Serve until the process is ended."""
    idle: list[Provider] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Caller(upstream, idle), "127.0.0.1", port, backlog=2048
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:3])))
