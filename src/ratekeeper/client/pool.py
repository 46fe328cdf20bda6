"""The lean pool that the gateway sends through: bytes out, bytes back, nothing else.

The only home of aiohttp. It follows no redirect, keeps no cookie, decodes nothing and
reads no environment: where a call goes is decided above. Every failure is a
`ProviderUnreachable`; `was_sent` says whether the provider may have heard of the call.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from ratekeeper.errors import ProviderUnreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

CONNECT_S = 10.0
SILENCE_S = 600.0  # models that think for minutes send nothing meanwhile
_IDLE_S = 55.0  # below the minute after which load balancers forget a connection
_BUFFER = 16 * 1024  # bytes of an answer kept while its reader is busy, twice at most
_READ = 16 * 1024  # bytes taken from a connection at once
_KEPT_URLS = 4096
_LEAST_STATUS = 200  # below are no answers; 101 would be another protocol, unasked
_REDIRECTS = range(300, 400)

_UNSENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
)


class Silence(enum.StrEnum):
    """Why no answer came, or no more of it."""

    DNS = "dns"
    TLS = "tls"
    PROXY = "proxy"
    REFUSED = "refused"
    CONNECT_TIMEOUT = "connect-timeout"
    READ_TIMEOUT = "read-timeout"
    BROKEN = "broken"
    REDIRECT = "redirect"


_HINTS = {
    Silence.DNS: "its name does not resolve: check base_url and the DNS",
    Silence.TLS: (
        "its certificate is not trusted: check base_url and the CA certificates"
    ),
    Silence.PROXY: "the proxy did not let the call through: check proxy",
    Silence.REFUSED: "nothing answers there: check base_url and the network",
    Silence.CONNECT_TIMEOUT: (
        f"no connection within {CONNECT_S:.0f} s: check the network"
    ),
    Silence.READ_TIMEOUT: f"silent for {SILENCE_S:.0f} s",
    Silence.BROKEN: "the connection broke",
    Silence.REDIRECT: "it leads elsewhere, which is not followed: check base_url",
}


class Unreached(ProviderUnreachable):
    """No answer came; `was_sent` says whether the call may have arrived all the same."""

    reason: Silence

    def __init__(self, host: str, *, reason: Silence, was_sent: bool) -> None:
        super().__init__(f"{host}: {_HINTS[reason]}", reason=reason)
        self.was_sent = was_sent


class Unsent(asyncio.CancelledError):
    """The call was cancelled before there was a connection that it could be sent by."""


class Answer:
    """An answer whose head is there; its body is read as it comes."""

    __slots__ = ("_host", "_response", "headers", "length", "status")

    def __init__(self, response: aiohttp.ClientResponse, host: str) -> None:
        self._response = response
        self._host = host
        self.status = response.status
        self.headers = response.raw_headers
        self.length = response.content_length

    def header(self, name: str) -> str:
        """Return one header, "" where there is none."""
        return self._response.headers.get(name, "")

    @property
    def fields(self) -> Mapping[str, str]:
        """The headers by name, in capitals or not."""
        return self._response.headers

    async def part(self) -> bytes:
        """Return what has come since the last time, b"" at the end."""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreached(error, self._host) from error

    async def head(
        self, most: int, within_s: float | None = None
    ) -> tuple[bytes, Silence | None]:
        """Return the first part of a body, and why that is not all of it, if so.

        What is after it is let go: what is beyond `most` bytes, what has not come in
        time and what a connection that broke has lost.
        """
        parts: list[bytes] = []
        size, why = 0, Silence.BROKEN
        try:
            async with asyncio.timeout(within_s):
                while size <= most:
                    part = await self.part()
                    if not part:
                        return b"".join(parts), None
                    parts.append(part)
                    size += len(part)
        except TimeoutError:
            why = Silence.READ_TIMEOUT
        except Unreached as error:
            why = error.reason
        return b"".join(parts)[:most], why

    async def whole(self) -> bytes:
        """Read the body to its end; for those whose length is known and short."""
        try:
            return await self._response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreached(error, self._host) from error

    def close(self) -> None:
        """Let go: one read to its end frees its connection, else that is closed."""
        self._response.close()


class _Upload:
    """A body on its way that remembers what broke it off: not the network, then."""

    __slots__ = ("_parts", "error")

    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        self._parts = parts
        self.error: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._parts:
                yield part
        except Exception as error:
            self.error = error
            raise


class _Connection(ResponseHandler):
    """Tells who reads a body when what follows in it is no HTTP.

    aiohttp 3.14 tells only who waits for a head, and takes the time limit away as well.
    """

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        body = self._payload
        super().set_exception(exc, *cause)
        if isinstance(exc, HttpProcessingError) and body is not None:
            body.set_exception(aiohttp.ClientPayloadError("the body is malformed"))


class _Sips(asyncio.BufferedProtocol):
    """Takes a little at a time: else it is up to 250 KB that a stalled reader holds."""

    def __init__(self, factory: Callable[[], ResponseHandler], room: bytearray) -> None:
        self.handler = factory()
        self._room = room
        self._view = memoryview(room)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.handler.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.handler.connection_lost(exc)

    def pause_writing(self) -> None:
        self.handler.pause_writing()

    def resume_writing(self) -> None:
        self.handler.resume_writing()

    def eof_received(self) -> None:
        self.handler.eof_received()

    def get_buffer(self, sizehint: int) -> bytearray:
        del sizehint
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self.handler.data_received(bytes(self._view[:nbytes]))


class _Connector(aiohttp.TCPConnector):
    def __init__(self) -> None:
        super().__init__(
            limit=0, keepalive_timeout=_IDLE_S, ssl=ssl.create_default_context()
        )
        kind: type[ResponseHandler] = _Connection
        self._factory = functools.partial(kind, loop=self._loop)
        self._room = bytearray(_READ)  # one for all: what is read is taken at once

    async def _create_connection(self, *args: Any, **options: Any) -> ResponseHandler:
        try:
            return await super()._create_connection(*args, **options)
        except asyncio.CancelledError as error:
            raise Unsent(*error.args) from error

    async def _wrap_create_connection(  # type: ignore[override]
        self, factory: Callable[[], ResponseHandler], *args: Any, **options: Any
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        sips = functools.partial(_Sips, factory, self._room)
        made: Any = await super()._wrap_create_connection(sips, *args, **options)
        transport, sipping = made
        return transport, sipping.handler


class Pool:
    """Connections to providers, shared by all calls of one event loop."""

    def __init__(self, *, silence_s: float = SILENCE_S) -> None:
        self._session = aiohttp.ClientSession(
            connector=_Connector(),
            auto_decompress=False,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_S, sock_read=silence_s
            ),
            skip_auto_headers=("user-agent", "accept", "content-type"),
            read_bufsize=_BUFFER,
        )
        # Else a DELETE or a GET is sent twice where a kept connection closes under it.
        self._session._retry_connection = False  # noqa: SLF001 - no public way
        self._urls: dict[str, URL] = {}

    async def send(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | AsyncIterator[bytes] | None = None,
        *,
        proxy: str | None = None,
    ) -> Answer:
        """Send a call and return once the head of its answer is there.

        What a body that comes in parts raises, this raises as well.
        """
        data: bytes | _Upload | None
        data = body if body is None or isinstance(body, bytes) else _Upload(body)
        target = self._url(url)
        try:
            response = await self._session.request(
                method,
                target,
                headers=CIMultiDict(headers),
                data=data,
                proxy=proxy,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if isinstance(data, _Upload) and data.error is not None:
                raise data.error from None
            raise _unreached(error, target.authority) from error
        flaw = _flaw(response)
        if flaw is not None:
            response.close()
            raise Unreached(target.authority, reason=flaw, was_sent=True)
        return Answer(response, target.authority)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()
        await asyncio.sleep(0)  # transports close in the next turn of the loop

    def _url(self, url: str) -> URL:
        found = self._urls.get(url)
        if found is None:
            if len(self._urls) >= _KEPT_URLS:
                self._urls.clear()
            found = self._urls[url] = URL(url, encoded=True)
        return found


def _flaw(response: aiohttp.ClientResponse) -> Silence | None:
    """Say why an answer is none; None for one that is.

    Passed on, a redirect would have its caller's SDK follow it, client key and all.
    """
    status = response.status
    if status < _LEAST_STATUS:
        return Silence.BROKEN
    if status in _REDIRECTS and "location" in response.headers:
        return Silence.REDIRECT
    return None


def _unreached(error: Exception, host: str) -> Unreached:
    """Say why no answer came: by the type of the error, never by its text."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            reason = Silence.DNS
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            reason = Silence.PROXY
        case aiohttp.ClientSSLError():
            reason = Silence.TLS
        case aiohttp.ConnectionTimeoutError():
            reason = Silence.CONNECT_TIMEOUT
        case aiohttp.ClientConnectorError():
            reason = Silence.REFUSED
        case TimeoutError():
            reason = Silence.READ_TIMEOUT
        case _:
            reason = Silence.BROKEN
    return Unreached(host, reason=reason, was_sent=not isinstance(error, _UNSENT))
