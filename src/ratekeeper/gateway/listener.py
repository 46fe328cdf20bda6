"""What all connections of callers share: their bounds, a clock, and who is there.

One timer looks at the deadlines of all of them, so that a request sets no timer; one
log line a minute sums up what was refused, so that a flood of it fills no disk.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from email.utils import formatdate
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.server import ServerState

from ratekeeper.gateway.exchange import log
from ratekeeper.gateway.http import Connection

if TYPE_CHECKING:
    import asyncio

    from ratekeeper.gateway.exchange import App

_SWEEP_S = 0.5  # how often deadlines are looked at
_REPORT_S = 60.0
_PHRASES = {
    400: "Bad Request",
    405: "Method Not Allowed",
    408: "Request Timeout",
    414: "URI Too Long",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long, how much and how many a caller may be; seconds and bytes."""

    head_s: float = 10.0  # for a whole head, from its first byte or the connection on
    body_s: float = 30.0  # for the next `least_body` bytes of a body
    idle_s: float = 75.0  # between two requests, unless there is no room for others
    write_s: float = 30.0  # for reading on, where what is sent has come to a halt
    linger_s: float = 2.0  # for reading the last answer
    most_head: int = 32 * 1024
    most_headers: int = 100
    most_url: int = 8 * 1024
    least_body: int = 1024
    slowest_body: int = 16 * 1024  # bytes a second, after the first `body_s`
    most_unread: int = 64 * 1024  # of a body, once it is answered
    most_unsent: int = 32 * 1024  # of an answer, beside what the kernel holds
    most_ahead: int = 16  # requests sent before the first of them is answered
    most_connections: int = 10_000
    most_refused: int = 1_000  # connections beyond those that are told so


class Listener(ServerState):
    """What all connections of one app share: bounds, clock, and who is there."""

    def __init__(
        self, app: App, loop: asyncio.AbstractEventLoop, bounds: Bounds | None = None
    ) -> None:
        super().__init__()
        self.app = app
        self.loop = loop
        self.bounds = bounds or Bounds()
        self.date = b""
        self.open: set[Connection] = set()
        # Of them those that are idle, or whose caller nobody knows: the longest so first.
        self.spare: dict[Connection, None] = {}
        self.is_draining = False
        self._refused: collections.Counter[str] = collections.Counter()
        self._closed = 0  # to make room for others
        self._reported_at = loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._config = uvicorn.Config(
            app,
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        self._config.load()

    def protocol(self) -> Connection:
        """Make the protocol of one connection, as `create_server` wants it."""
        return Connection(self._config, self, {}, self.loop)

    def start(self) -> None:
        """Look at deadlines from now on, until `close`."""
        self.date = b"date: " + formatdate(usegmt=True).encode()
        self._timer = self.loop.call_later(self._interval, self.start)
        self.sweep()

    @property
    def _interval(self) -> float:
        bounds = self.bounds
        shortest = min(bounds.head_s, bounds.body_s, bounds.write_s, bounds.linger_s)
        return min(_SWEEP_S, shortest / 4)

    def sweep(self) -> None:
        """End what is late, and sum up what was refused in the last minute."""
        now = self.loop.time()
        for connection in tuple(self.open):
            if connection.until <= now:
                connection.late()
            if connection.stuck_at <= now:
                connection.halted()
        if now - self._reported_at >= _REPORT_S:
            self._reported_at = now
            self._report()

    def make_room(self) -> bool:
        """Close the connection that is idle, or of nobody known, longest; False: none.

        Whoever has no key could hold all of them with heads and bodies that never end.
        """
        for connection in self.spare:
            connection.make_room()
            self._closed += 1
            return True
        return False

    def refused(self, status: int, why: str) -> bytes:
        """Count a request that was no good HTTP; return what its caller is told."""
        self._refused[f"{status}, {why}"] += 1
        return _reply(status, why)

    def _report(self) -> None:
        if self._closed:
            log.warning(
                "%d connections closed, idle or of nobody known: too many are open",
                self._closed,
            )
            self._closed = 0
        if not self._refused:
            return
        total = self._refused.total()
        told = ", ".join(f"{n} x {why}" for why, n in self._refused.most_common())
        self._refused.clear()
        log.warning("%d requests refused as bad HTTP: %s", total, told)

    @property
    def open_answers(self) -> int:
        """How many calls are not answered in full."""
        return sum(connection.is_busy for connection in self.open)

    def drain(self) -> None:
        """Answer what has come, end what is silent; no answer is cut."""
        self.is_draining = True
        for connection in tuple(self.open):
            connection.shutdown()

    def cut(self) -> None:
        """End every connection where it stands."""
        for connection in tuple(self.open):
            connection.transport.abort()

    def close(self) -> None:
        """Look at no deadline any longer."""
        if self._timer is not None:
            self._timer.cancel()
        self._report()


def _reply(status: int, why: str) -> bytes:
    kind = "server_error" if status >= 500 else "invalid_request_error"  # noqa: PLR2004
    error = {"message": why[0].upper() + why[1:] + ".", "type": kind, "code": None}
    body = json.dumps({"error": error}).encode()
    head = (
        f"HTTP/1.1 {status} {_PHRASES[status]}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(body)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body
