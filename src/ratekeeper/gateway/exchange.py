"""One request and its answer, as an ASGI app sees them.

It knows how an answer is framed and when a body has come; it refuses to know parsers,
deadlines and limits, which are the connection's. An answer is framed here alone: what
the app says of `transfer-encoding` is left out.
"""

from __future__ import annotations

import asyncio
import http
import logging
from typing import TYPE_CHECKING, Any

from ratekeeper.gateway import unforeseen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping

    from ratekeeper.gateway.http import Connection

    Message = MutableMapping[str, Any]
    App = Callable[
        [
            MutableMapping[str, Any],
            Callable[[], Awaitable[Message]],
            Callable[[Message], Awaitable[None]],
        ],
        Awaitable[None],
    ]

log = logging.getLogger("ratekeeper.gateway")

MOST_HELD = 64 * 1024  # bytes of a body that the app has not taken yet
_LARGE = 16 * 1024  # a part of an answer
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection", b"date"})
_BODILESS = frozenset({204, 304})
_CLOSE = b"connection: close"
_CHUNKED = b"transfer-encoding: chunked"
# What the text of a head may hold; the line ends are ours.
_TEXT = bytes({9, *range(32, 256)} - {127})
_STATUS = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode()
    for status in http.HTTPStatus
}


class BadHead(Exception):
    """A header holds what no header may; nothing has been sent."""


class Wire:
    """What an app may know of the connection of its call: `scope["ratekeeper.wire"]`.

    `on_gone` is called at once, in the loop, when the caller is lost before the answer
    is complete. Whoever sets it late looks at `is_gone` afterwards. While more than
    `MOST_HELD` bytes of a body are not received, nobody reads on and so nobody is gone.
    Of a body that is not received, `most_unread` bytes are thrown away as they come, so
    that whoever sends it whole first sees the answer; for a longer one the connection is
    closed.
    """

    __slots__ = ("is_gone", "most_unread", "on_gone")

    def __init__(self, *, most_unread: int = 0) -> None:
        self.most_unread = most_unread
        self.is_gone = False
        self.on_gone: Callable[[], None] | None = None

    def cut(self) -> None:
        """End the connection where the answer stands: the caller sees it is not whole."""
        raise NotImplementedError

    def known(self) -> None:
        """Take note of who calls: those of nobody known make room for others first."""


class Exchange(Wire):
    """A request that comes in, and its answer that goes out."""

    __slots__ = (
        "_connection",
        "_due",
        "_head",
        "_is_chunked",
        "_is_mute",
        "_is_old",
        "_length",
        "_pieces",
        "_waits_for_continue",
        "held",
        "is_complete",
        "is_started",
        "keep_alive",
        "more_body",
        "news",
    )

    def __init__(
        self,
        connection: Connection,
        *,
        is_head: bool,
        is_old: bool,
        length: int,
        most_unread: int,
        keep_alive: bool,
        expects_continue: bool,
    ) -> None:
        super().__init__(most_unread=most_unread)
        self._connection = connection
        self._is_mute = is_head  # answered without a body, whatever its head says
        self._is_old = is_old  # HTTP/1.0 knows no chunks
        self._length = length  # of its body, at least
        self._waits_for_continue = expects_continue
        self.keep_alive = keep_alive
        self.news = asyncio.Event()
        self._pieces: list[bytes] = []
        self.held = 0
        self.more_body = True
        self.is_started = False
        self.is_complete = False
        self._is_chunked = False
        self._due: int | None = None  # bytes of the answer's body that are owed
        self._head = b""  # of a short answer: written with its body, as one

    # What the connection tells

    def feed(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self._pieces.append(piece)
        self.held += len(piece)
        self.news.set()

    def end(self) -> None:
        """Take note that the body is whole."""
        self.more_body = False
        self.news.set()

    def leave(self) -> None:
        """Take note that the caller is lost."""
        if self.is_complete or self.is_gone:
            return
        self.is_gone = True
        self.news.set()
        hook, self.on_gone = self.on_gone, None
        if hook is not None:
            hook()

    @property
    def is_held_up(self) -> bool:
        """Whether the caller rightly sends nothing: it was not told to go on."""
        return self._waits_for_continue

    # What the app does

    def known(self) -> None:
        """Have the connection keep its place while others come."""
        self._connection.known()

    def cut(self) -> None:
        """End the connection where the answer stands: the caller sees it is not whole."""
        self.on_gone = None
        self.is_gone = True
        self.news.set()
        if self._is_old:  # to whom a close would be the end of the body
            self._connection.transport.abort()
        else:
            self._connection.part()

    async def run(self, app: App, scope: MutableMapping[str, Any]) -> None:
        """Have the app answer; whatever it does, the caller is not left hanging."""
        if self.is_gone:
            return
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            self.cut()
            raise
        except Exception as error:  # noqa: BLE001 - the last resort: any app, any error
            unforeseen.tell("a call", type(error), error.__traceback__)
        if self.is_complete or self.is_gone:
            return
        if self.is_started:
            self.cut()
            return
        self._write_head(500, [(b"content-length", b"0"), (b"connection", b"close")])
        self._write_body(b"", more=False)

    async def receive(self) -> Message:
        """Return what has come of the body since the last time, or the caller's end."""
        if self._waits_for_continue:
            self._waits_for_continue = False
            if not self.is_gone:
                self._connection.transport.write(_CONTINUE)
        if not self.is_gone and not self.is_complete:
            if self.more_body:
                self._connection.flow.resume_reading()
            await self.news.wait()
            self.news.clear()
        if self.is_gone or self.is_complete:
            return {"type": "http.disconnect"}
        body = b"".join(self._pieces)
        self._pieces.clear()
        self.held = 0
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        """Write the next part of the answer; return as soon as the caller reads on.

        So nobody takes the part after it in hand while nobody takes it off theirs.
        """
        flow = self._connection.flow
        if flow.write_paused and not self.is_gone:
            await flow.drain()
        if self.is_gone:
            return
        kind = message["type"]
        if self.is_started and not self.is_complete and kind == "http.response.body":
            more = message.get("more_body", False)
            self._write_body(message.get("body", b""), more=more)
            if more and flow.write_paused:
                await flow.drain()
        elif not self.is_started and kind == "http.response.start":
            self._write_head(message["status"], message.get("headers", ()))
        else:
            raise RuntimeError(f"{kind} is out of turn")

    def _write_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        if self._waits_for_continue:
            self._waits_for_continue = False
            self.keep_alive = False  # nobody knows whether the body will come
        keep_alive = self.keep_alive and not (
            self.more_body and self._length > self.most_unread
        )
        date: bytes = self._connection.listener.date
        due: int | None = None
        head = [_STATUS.get(status) or b"HTTP/1.1 %d " % status]
        for field in headers:
            name, value = field
            if name in _FRAMING:
                if name == b"date":
                    date = b""
                elif name == b"content-length":
                    due = int(value)
                else:
                    if name == b"connection" and b"close" in value.lower():
                        keep_alive = False
                    continue
            head.append(b": ".join(field))
        if status in _BODILESS:
            self._is_mute = True
        is_chunked = False
        if due is None and not self._is_mute:
            if self._is_old:
                keep_alive = False  # the end of the connection is the end of the body
            else:
                is_chunked = True
                head.append(_CHUNKED)
        if not keep_alive:
            head.append(_CLOSE)
        if date:
            head.append(date)
        head.append(b"\r\n")
        text = b"\r\n".join(head)
        if text.translate(None, _TEXT) != b"\r\n" * len(head):
            raise BadHead
        self.keep_alive = keep_alive
        self._is_chunked = is_chunked
        self._due = None if self._is_mute else due
        self.is_started = True
        if due is not None and due <= _LARGE:
            self._head = text
        else:
            self._connection.transport.write(text)

    def _write_body(self, body: bytes, *, more: bool) -> None:
        if self._is_mute:
            body = b""
        if self._is_chunked:
            parts = (b"%x\r\n" % len(body), body, b"\r\n") if body else ()
            if not more:
                parts = (*parts, b"0\r\n\r\n")
            if len(body) > _LARGE:  # no copy of it, which might have to wait as well
                self._connection.transport.writelines(parts)
            elif parts:
                self._connection.transport.write(b"".join(parts))
        else:
            if self._due is not None:
                self._due -= len(body)
                if self._due < 0 or (self._due and not more):
                    raise RuntimeError("an answer is not as long as it said")
            if self._head:
                body, self._head = self._head + body, b""
            if body:
                self._connection.transport.write(body)
        if not more:
            self.is_complete = True
            self.on_gone = None
            self.news.set()
            self._connection.answered(self)
