"""A provider and callers for thousands of streams, in one loop, over bare sockets.

What a call's header `x-play` says is what it is answered: `silent`, `head`, `events N`
(and then nothing more), `stream N S` (an event each S seconds, then the usage and the
end), `flood` (without end), `plain`. Of each call, by its `x-call`, it keeps when it came
and when its connection was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

from tests.gateway import gates

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
PUT = 9  # tokens of input that it reports
DONE = b"data: [DONE]\n\n"
LAST = b"0\r\n\r\n"


def event(text: str) -> bytes:
    """Return a chunk that holds one event, as OpenAI writes it."""
    said = {"choices": [{"index": 0, "delta": {"content": text}}], "usage": None}
    return chunk(b"data: " + json.dumps(said).encode() + b"\n\n")


def chunk(data: bytes) -> bytes:
    """Return data framed as one chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def _usage(out: int) -> dict[str, Any]:
    total = PUT + out
    used = {"prompt_tokens": PUT, "completion_tokens": out, "total_tokens": total}
    return {"choices": [], "usage": used}


class Provider:
    """What came, and when it was lost."""

    def __init__(self) -> None:
        self.url = ""
        self.came: dict[str, float] = {}
        self.lost: dict[str, float] = {}
        self.asked: list[dict[str, Any]] = []  # the bodies
        self.tasks: set[asyncio.Task[None]] = set()
        self.flooded = 0  # parts of floods that were written


class _Connection(asyncio.Protocol):
    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._data = b""
        self._call = ""
        self._flows = asyncio.Event()
        self._flows.set()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def pause_writing(self) -> None:
        self._flows.clear()

    def resume_writing(self) -> None:
        self._flows.set()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._call:
            self._provider.lost[self._call] = time.monotonic()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        lines = [line.partition(b": ") for line in head.lower().split(b"\r\n")[1:]]
        fields = {name.decode(): value.decode() for name, _, value in lines}
        if len(body) < int(fields["content-length"]):
            return
        self._data = b""
        self._call = fields["x-call"]
        self._provider.came[self._call] = time.monotonic()
        self._provider.asked.append(json.loads(body))
        play = self._play(*fields["x-play"].split(), asked=self._provider.asked[-1])
        self._task = asyncio.get_running_loop().create_task(play)
        self._provider.tasks.add(self._task)
        self._task.add_done_callback(self._provider.tasks.discard)

    async def _play(self, how: str, *said: str, asked: dict[str, Any]) -> None:
        write = self._transport.write
        if how == "silent":
            return
        if how == "plain":
            body = json.dumps(_usage(asked.get("max_tokens", 1))).encode()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
            self._call = ""  # answered: what becomes of its connection is no matter
            return
        write(HEAD)
        if how == "events":
            write(event("word ") * int(said[0]))
        elif how == "stream":
            for _ in range(int(said[0])):
                await asyncio.sleep(float(said[1]))
                write(event("word "))
            told = chunk(
                b"data: " + json.dumps(_usage(int(said[0]))).encode() + b"\n\n"
            )
            write(told + chunk(DONE) + LAST)
            self._call = ""
        elif how == "flood":
            piece = event("w" * 3900)
            sock = self._transport.get_extra_info("socket")
            # Else the kernel keeps megabytes of each, which take seconds to write.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            while not self._transport.is_closing():
                await self._flows.wait()
                write(piece)
                self._provider.flooded += 1


@contextlib.asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    """Run a provider in this loop."""
    it = Provider()
    loop = asyncio.get_running_loop()
    sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
    server = await loop.create_server(lambda: _Connection(it), sock=sock, backlog=2048)
    it.url = f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
    try:
        yield it
    finally:
        server.close()
        for task in tuple(it.tasks):
            task.cancel()


def request(call: str, play: str, **body: Any) -> bytes:
    """Return the bytes of a call of a chat completion."""
    said = {"model": "gpt-4o", "max_tokens": 400, "messages": gates.MESSAGES, **body}
    data = json.dumps(said).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n"
        f"authorization: Bearer {gates.SECRET}\r\nx-call: {call}\r\nx-play: {play}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


async def dial(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a gateway."""
    host, _, port = url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


async def until(is_so: Any, within_s: float = 5.0) -> None:
    """Wait for a state that nobody announces, but no longer than that."""
    end = time.monotonic() + within_s
    while not is_so() and time.monotonic() < end:  # noqa: ASYNC110 - as said
        await asyncio.sleep(0.002)
