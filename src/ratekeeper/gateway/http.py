"""Connections of callers: uvicorn's protocol under bounds of ours.

It knows what HTTP/1.1 may look like here and how long each part of it may take, and
answers what is wrong itself; whatever reaches the app is one request with one meaning.
It refuses to know whose call it is and what is in it.

Of uvicorn's protocol it keeps the connection; requests are `Exchange`s, because
uvicorn's own stop listening for the caller's end while much of a body is held, add
trailers to the headers, and write a 400 into the midst of an answer.
"""

from __future__ import annotations

import collections
import enum
import math
import urllib.parse
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ratekeeper.gateway.exchange import MOST_HELD, Exchange

if TYPE_CHECKING:
    import asyncio
    from collections.abc import MutableMapping

    import uvicorn

    from ratekeeper.gateway.listener import Listener

_METHODS = frozenset(
    {b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"}
)
_HOST, _LENGTH, _ENCODING, _EXPECT = 1, 2, 4, 8
# Headers that may come once: two would leave open which of them counts.
_ONCE = {
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"transfer-encoding": _ENCODING,
    b"expect": _EXPECT,
    b"authorization": 16,
    b"x-api-key": 32,
    b"x-goog-api-key": 64,
    b"api-key": 128,
    b"content-type": 256,
    b"content-encoding": 512,
}
_ASGI = {"version": "3.0", "spec_version": "2.3"}


class Awaits(enum.Enum):
    """What a connection waits for, and so what its deadline means."""

    HEAD = enum.auto()
    BODY = enum.auto()
    ANSWER = enum.auto()  # ours: no deadline
    NEXT = enum.auto()  # the first byte of a request, or the end
    END = enum.auto()  # all is said; what still comes is thrown away


class _Flawed(Exception):
    """Stops the parser where a request is found to be wrong."""


class Connection(HttpToolsProtocol):
    """One connection of a caller."""

    def __init__(self, config: uvicorn.Config, listener: Listener, *rest: Any) -> None:
        super().__init__(config, listener, *rest)
        self.parser = httptools.HttpRequestParser(self)  # without uvicorn's leniency
        self.listener = listener
        self.bounds = listener.bounds
        self.latest: Exchange | None = None  # the one whose request came last
        self.answering: Exchange | None = None
        self.ahead: collections.deque[tuple[Exchange, dict[str, Any]]] = (
            collections.deque()
        )
        self.awaits = Awaits.HEAD
        self.until = math.inf  # the deadline of what is awaited
        self.stuck_at = math.inf  # by then the caller must have read on
        self.unsent = 0  # when that was set
        self.is_deaf = False
        self.is_known = False  # who calls
        self.parting = b""  # what is said when all requests before it are answered
        self.why = (400, "this is no HTTP request")
        self.in_head = False
        self.is_offered = False  # another protocol, by the request that comes in
        self.unread = 0  # bytes of which nothing has come yet
        self.head_left = 0
        self.once = 0
        self.length = 0
        self.body_left = 0
        self.body_until = math.inf  # the deadline of the whole body

    # The connection

    def connection_made(  # type: ignore[override]
        self, transport: asyncio.Transport
    ) -> None:
        """Begin to wait for a request, or say that there is no room."""
        super().connection_made(transport)
        listener = self.listener
        listener.open.add(self)
        transport.set_write_buffer_limits(self.bounds.most_unsent)
        crowd = len(listener.open) - self.bounds.most_connections
        if crowd > 0 and listener.make_room():
            crowd = 0
        self._await(Awaits.NEXT, self.bounds.head_s)
        if crowd > self.bounds.most_refused:
            transport.abort()
        elif crowd > 0:
            self.refuse(503, "too many connections: try again later")
        elif listener.is_draining:
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the app whose answer will not be read."""
        del exc
        self.connections.discard(self)
        self.listener.open.discard(self)
        self.listener.spare.pop(self, None)
        self.parser = None  # type: ignore[assignment]
        answering, self.answering, self.latest = self.answering, None, None
        self.ahead.clear()
        if answering is not None:
            answering.leave()
        self.flow.resume_writing()

    @property
    def is_busy(self) -> bool:
        """Whether a call is being answered."""
        return self.answering is not None

    def known(self) -> None:
        """Take note that its caller has a key, as far as one is needed."""
        self.is_known = True
        if self.awaits is not Awaits.NEXT:
            self.listener.spare.pop(self, None)

    def make_room(self) -> None:
        """End it at once, for another one."""
        self.listener.spare.pop(self, None)
        if self.awaits is Awaits.NEXT:
            self.late()
        else:
            self.transport.abort()

    def shutdown(self) -> None:
        """End it as soon as what has come is answered."""
        if self.latest is not None and self.is_busy:
            self.latest.keep_alive = False
        elif self.awaits is not Awaits.END and not (self.in_head or self.unread):
            # What the caller may be sending in this moment is still answered.
            self.until = min(self.until, self.loop.time() + 0.1)

    def _await(self, what: Awaits, seconds: float) -> None:
        if what is Awaits.NEXT:
            self.listener.spare[self] = None
        elif self.is_known and self in self.listener.spare:
            del self.listener.spare[self]
        self.awaits = what
        self.until = self.loop.time() + seconds

    def _await_body(self) -> None:
        """Await the next part of a body, though no longer than for the whole of it."""
        self.body_left = self.bounds.least_body
        self._await(Awaits.BODY, self.bounds.body_s)
        self.until = min(self.until, self.body_until)

    # Deadlines

    def late(self) -> None:
        """Do what is due when what is awaited has not come."""
        match self.awaits:
            case Awaits.HEAD if self.unread or self.in_head:
                self.refuse(408, "the head of the request took too long")
            case Awaits.BODY if self.flow.read_paused or (
                self.latest is not None and self.latest.is_held_up
            ):
                # It is we who wait.
                self.body_until = max(
                    self.body_until, self.loop.time() + self.bounds.body_s
                )
                self._await_body()
            case Awaits.BODY if self.latest is not None and not self.latest.is_complete:
                self.refuse(408, "the body of the request came too slowly")
            case Awaits.END if self.transport.get_write_buffer_size():
                self.until = math.inf
                self.pause_writing()  # the end is written as the rest is
            case Awaits.END:
                self.transport.abort()
            case _:
                self.transport.close()
                self._await(Awaits.END, self.bounds.linger_s)

    def pause_writing(self) -> None:
        """Hold the app back; from now on the caller has to read."""
        super().pause_writing()
        self.unsent = self.transport.get_write_buffer_size()
        self.stuck_at = self.loop.time() + self.bounds.write_s

    def resume_writing(self) -> None:
        """Let the app go on."""
        super().resume_writing()
        self.stuck_at = math.inf
        if self.awaits is Awaits.END:
            self._await(Awaits.END, self.bounds.linger_s)

    def halted(self) -> None:
        """Cut a caller who does not read on; a long answer may take its time."""
        unsent = self.transport.get_write_buffer_size()
        if self.unsent - unsent < self.bounds.most_unsent:
            self.transport.abort()
        else:
            self.unsent = unsent
            self.stuck_at = self.loop.time() + self.bounds.write_s

    # What comes

    def data_received(self, data: bytes) -> None:
        """Read on, or throw away what nobody will answer."""
        self.unread += len(data)
        if self.is_deaf:
            if self.unread > self.bounds.most_unread:
                self.flow.pause_reading()
            return
        if self.awaits is Awaits.NEXT:
            self._await(Awaits.HEAD, self.bounds.head_s)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.refuse(*self.why)
        else:
            if self.unread > self.bounds.most_head:
                self.refuse(431, "the head of the request is too large")

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as found:
            # Java's client offers HTTP/2 so. The offer is not taken, which HTTP allows;
            # but the parser takes it, and would read the body as another protocol.
            self.is_offered = False
            self.parser = httptools.HttpRequestParser(_Retold(self))
            framing = b"transfer-encoding: chunked"
            if not self.once & _ENCODING:
                framing = b"content-length: %d" % self.length
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
            self._feed(data[found.args[0] :])

    def _fail(self, status: int, why: str) -> None:
        self.why = (status, why)
        raise _Flawed

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.url = b""
        self.headers = []
        self.in_head = True
        self.head_left = self.bounds.most_head
        self.once = 0
        self.length = 0

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self.url += url
        if len(self.url) > self.bounds.most_url:
            self._fail(414, "the URL is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, if it can mean but one thing."""
        if not self.in_head:
            return  # a trailer: nothing may be added once a request was judged
        name = name.lower()
        self.head_left -= len(name) + len(value) + 4
        mark = _ONCE.get(name)
        if mark is not None:
            if self.once & mark:
                self._fail(400, f"the header {name.decode()} may be sent once only")
            self.once |= mark
            if mark == _LENGTH:
                self.length = int(value)  # digits, or the parser had refused it
            elif mark == _ENCODING and value.lower() != b"chunked":
                self._fail(400, "a body may be encoded as chunked, and as nothing else")
            elif mark == _EXPECT and value.lower() != b"100-continue":
                self.once -= mark
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Hand the request to the app, or let it wait for those before it."""
        self.unread = 0
        self.in_head = False
        self.is_offered = self.parser.should_upgrade()
        version = self.parser.get_http_version()
        method = self.parser.get_method()
        self._check(version, method)
        once = self.once
        has_body = bool(once & _ENCODING or self.length)
        most_unread = self.bounds.most_unread
        exchange = Exchange(
            self,
            is_head=method == b"HEAD",
            is_old=version == "1.0",
            # Chunks may come to any length: not to one that is read for nothing.
            length=most_unread + 1 if once & _ENCODING else self.length,
            most_unread=most_unread,
            keep_alive=(
                version != "1.0"
                and not self.listener.is_draining
                and self.parser.should_keep_alive()
            ),
            expects_continue=has_body and bool(once & _EXPECT) and version != "1.0",
        )
        path, _, query = self.url.partition(b"?")
        text = path.decode("ascii")
        scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": "http",
            "root_path": "",
            "method": method.decode("ascii"),
            "path": urllib.parse.unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
            "headers": self.headers,
            "ratekeeper.wire": exchange,
        }
        self.latest = exchange
        if has_body:
            self.body_until = self.loop.time() + self.bounds.body_s
            self._await_body()
        if self.answering is None:
            self._answer(exchange, scope)
        else:
            self.ahead.append((exchange, scope))

    def _check(self, version: str, method: bytes) -> None:
        """Let pass what has one meaning, for us and for whoever stands before us."""
        if self.head_left < 0 or len(self.headers) > self.bounds.most_headers:
            self._fail(431, "the head of the request is too large")
        if method not in _METHODS:
            self._fail(405, "this method is not served")
        if version not in {"1.1", "1.0"}:
            self._fail(400, "HTTP/1.1 is spoken here")
        url = self.url
        if not url.startswith(b"/") or b"#" in url or not url.isascii():
            self._fail(400, "the target of a request is a path, from / on, in ASCII")
        if not self.once & _HOST:
            self._fail(400, "the header host is missing")
        if self.once & _ENCODING and (self.once & _LENGTH or version == "1.0"):
            self._fail(400, "the length of the body is not clear")
        if self.latest is not None and not self.latest.keep_alive:
            self._fail(400, "the connection was to be closed")
        if len(self.ahead) >= self.bounds.most_ahead:
            self._fail(400, "too many requests before the first is answered")

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self.unread = 0
        exchange = self.latest
        assert exchange is not None
        if self.is_deaf:
            return
        size = len(body)
        self.body_left -= size
        self.body_until += size / self.bounds.slowest_body
        if self.body_left <= 0:
            self._await_body()
        if exchange.is_complete or exchange.is_gone:
            exchange.held += size
            if exchange.held > exchange.most_unread:
                self.part()
            return
        exchange.feed(body)
        if exchange.held > MOST_HELD:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        """End a request."""
        if self.is_offered:
            return  # its body is yet to be read
        self.unread = 0
        exchange = self.latest
        assert exchange is not None
        exchange.end()
        self.flow.resume_reading()  # else the caller's end would go unnoticed
        if exchange.is_complete:
            self._await(Awaits.NEXT, self.bounds.idle_s)
        else:
            self.awaits = Awaits.ANSWER
            self.until = math.inf

    # What goes

    def _answer(self, exchange: Exchange, scope: MutableMapping[str, Any]) -> None:
        self.answering = exchange
        task = self.loop.create_task(exchange.run(self.listener.app, scope))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def answered(self, exchange: Exchange) -> None:
        """Go on after an answer: to the next request, or to the end."""
        if exchange is not self.answering:
            return
        self.listener.total_requests += 1
        self.answering = None
        if not exchange.keep_alive:
            self.part()
        elif self.ahead:
            self._answer(*self.ahead.popleft())
        elif self.parting:
            self.transport.write(self.parting)
            self.part()
        elif exchange.more_body:
            exchange.held = 0  # from here on, what is thrown away
            self.flow.resume_reading()
        elif self.in_head:
            self._await(Awaits.HEAD, self.bounds.head_s)
        else:
            self._await(Awaits.NEXT, self.bounds.idle_s)

    def refuse(self, status: int, why: str) -> None:
        """Answer what is wrong after all that came before it, and listen no more."""
        if self.is_deaf:
            return
        self.is_deaf = True
        if self.latest is not None and not self.latest.keep_alive:
            return  # it was to be the last anyway, and what follows it is nobody's
        self.parting = self.listener.refused(status, why)
        self._drop_unfinished()
        if self.answering is None and not self.transport.is_closing():
            self.transport.write(self.parting)
            self.part()

    def _drop_unfinished(self) -> None:
        """Give up the request that was still coming in, if any."""
        exchange = self.latest
        if exchange is None or not exchange.more_body:
            return
        if exchange is not self.answering:
            if self.ahead and self.ahead[-1][0] is exchange:
                self.ahead.pop()
            return
        exchange.leave()
        self.answering = None
        if exchange.is_started:
            self.transport.abort()

    def part(self) -> None:
        """Say no more. The caller may read what was said before the connection ends."""
        self.is_deaf = True
        self._await(Awaits.END, self.bounds.linger_s)
        if self.latest is not None:
            self.latest.keep_alive = False
        if self.latest is not None and not self.latest.more_body and not self.parting:
            self.transport.close()
            return
        # Closed at once, with bytes of the caller unread, it would be reset.
        self.unread = 0
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()


class _Retold:
    """Callbacks for a parser that is told a head again, to read what comes after."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._is_known = True
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete

    def on_message_begin(self) -> None:
        if not self._is_known:
            self._connection.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._is_known:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_known:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._is_known:
            self._connection.on_headers_complete()
        self._is_known = False
