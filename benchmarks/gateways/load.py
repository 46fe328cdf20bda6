"""The callers: as many at once, or as many a second, as they are told.

A caller is an `asyncio.Protocol` over one connection that it keeps. Every answer is read
to its end and looked at: what is no 200, or no whole answer, counts as a failure. Times
are of the caller's own clock: from the request's last byte written to the answer's first
byte of body, and to its end.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, Any, Protocol

import httptools

from benchmarks.gateways import prompts

if TYPE_CHECKING:
    from collections.abc import Mapping

DONE = b"data: [DONE]"
TEXT = b'"content":'
PATIENCE_S = 120.0
PAUSE_S = 0.005  # between two streams that are opened to be held
STUCK_S = 5.0  # without one more open, no more are waited for


@dataclasses.dataclass(slots=True, kw_only=True)
class Call:
    """One call and what came of it."""

    began: float
    first: float = 0.0  # the body's first byte
    ended: float = 0.0  # 0: it never did
    status: int = 0
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: list[bytes] = dataclasses.field(default_factory=list)
    reads: int = 0  # pieces the answer came in

    @property
    def is_answered(self) -> bool:
        return self.ended > 0 and self.status == 200

    def chunks(self) -> int:
        """Count the events with text of a stream."""
        return b"".join(self.body).count(TEXT)

    def is_whole(self, chunks: int) -> bool:
        """Say whether a stream came to its end with all of its text."""
        body = b"".join(self.body)
        return self.is_answered and DONE in body and body.count(TEXT) >= chunks


class Opened(Protocol):
    """What can be told of streams that are held, and done for them."""

    def count(self) -> int:
        """Say how many are open."""

    def release(self) -> None:
        """Let them go on to their ends."""


class Caller(asyncio.Protocol):
    """One connection, one call at a time."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._parser: Any = None
        self._waiter: asyncio.Future[None] | None = None
        self.call = Call(began=0.0)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self._wake()

    def data_received(self, data: bytes) -> None:
        self.call.reads += 1
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._target.keeps_headers:
            self.call.headers[name.decode().lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.call.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if not self.call.first:
            self.call.first = time.perf_counter()
        self.call.body.append(body)

    def on_message_complete(self) -> None:
        self.call.ended = time.perf_counter()
        if not self._parser.should_keep_alive():
            self._transport.close()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def ask(self, request: bytes) -> Call:
        """Make a call and wait for the end of its answer."""
        if self._transport is None or self._transport.is_closing():
            self._transport, _ = await self._loop.create_connection(
                lambda: self, "127.0.0.1", self._target.port
            )
        self._parser = httptools.HttpResponseParser(self)
        self._waiter = self._loop.create_future()
        self.call = Call(began=time.perf_counter())
        self._transport.write(request)
        await self._waiter
        return self.call

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()


class Target:
    """Whom to call, and with which headers."""

    def __init__(
        self, port: int, headers: Mapping[str, str], *, keeps_headers: bool = False
    ) -> None:
        self.port = port
        self.keeps_headers = keeps_headers
        self._headers = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
        self._made: dict[tuple[int, bool], bytes] = {}

    def request(self, number: int, *, stream: bool = False, **more: Any) -> bytes:
        """Return the bytes of a call, as an SDK sends them."""
        kind = (number % prompts.KINDS, stream)
        if more or kind not in self._made:
            body = prompts.ask(kind[0], stream=stream, **more)
            made = (
                "POST /v1/chat/completions HTTP/1.1\r\n"
                f"host: 127.0.0.1:{self.port}\r\n"
                "accept: application/json\r\n"
                "content-type: application/json\r\n"
                "user-agent: OpenAI/Python 3.57.0\r\n"
                "x-stainless-lang: python\r\n"
                "x-stainless-retry-count: 0\r\n"
                f"{self._headers}content-length: {len(body)}\r\n\r\n"
            ).encode() + body
            if more:
                return made
            self._made[kind] = made
        return self._made[kind]


async def flat_out(
    target: Target, callers: int, seconds: float, *, stream: bool = False
) -> list[Call]:
    """Keep so many calls under way for a while; each caller asks again at once."""
    until = time.perf_counter() + seconds

    async def work(number: int) -> list[Call]:
        caller, calls = Caller(target), []
        while time.perf_counter() < until:
            calls.append(await caller.ask(target.request(number, stream=stream)))
            if not stream:
                calls[-1].body = []
            number += callers + 1
        caller.close()
        return calls

    worked = await asyncio.gather(*map(work, range(callers)))
    return [call for calls in worked for call in calls]


async def at_rate(
    target: Target, rate: float, seconds: float, *, stream: bool = False
) -> list[Call]:
    """Make so many calls a second, evenly, whatever becomes of those before."""
    idle: list[Caller] = []
    calls: list[Call] = []

    async def one(number: int) -> None:
        caller = idle.pop() if idle else Caller(target)
        calls.append(await caller.ask(target.request(number, stream=stream)))
        idle.append(caller)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            wait_s = began + number / rate - time.perf_counter()
            await asyncio.sleep(max(0.0, wait_s))
            group.create_task(one(number))
    for caller in idle:
        caller.close()
    return calls


async def held_open(target: Target, count: int, opened: Opened) -> list[Call]:
    """Open streams that the provider holds; let it go on once all are open, or stuck."""
    callers = [Caller(target) for _ in range(count)]
    tasks = []
    for number, caller in enumerate(callers):
        request = target.request(number, stream=True)
        tasks.append(asyncio.ensure_future(caller.ask(request)))
        await asyncio.sleep(PAUSE_S)
    reached = -1
    while (now := opened.count()) < count and now > reached:
        reached = now
        await asyncio.sleep(STUCK_S if now else 3 * STUCK_S)
    opened.release()
    _, late = await asyncio.wait(tasks, timeout=PATIENCE_S)
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for caller in callers:
        caller.close()
    return [caller.call for caller in callers]
