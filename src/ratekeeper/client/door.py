"""Between an HTTP library and the limits: its requests become asks, refusals answers.

httpx2 and httpx have the same shapes, so the library is an argument. A request in hand
is only looked at: its body, headers and URL are sent as they are.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import TYPE_CHECKING, Any

from ratekeeper.client import flow
from ratekeeper.client.attempt import Counter
from ratekeeper.core.units import micros
from ratekeeper.errors import (
    LimitExceeded,
    NeverPossible,
    PriceUnknown,
    ProviderOverloaded,
)
from ratekeeper.limiter import AsyncLimiter, Limiter
from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.facts import Kind, Verdict

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from types import ModuleType

    from ratekeeper.client.attempt import Ask
    from ratekeeper.client.prices import Prices
    from ratekeeper.providers.catalog import Provider

# What a limiter says instead of sending, and the same to catch.
Refusal = LimitExceeded | NeverPossible | PriceUnknown | ProviderOverloaded
REFUSALS = (LimitExceeded, NeverPossible, PriceUnknown, ProviderOverloaded)

_RETRY_COUNT = "x-stainless-retry-count"  # how often the SDK has tried before


class Door:
    """One HTTP library's way in."""

    def __init__(
        self,
        library: ModuleType,
        limiter: Limiter | AsyncLimiter,
        provider: Provider | str,
        body: type,
        raise_refusals: bool,  # noqa: FBT001 - private
        prices: Prices | None,
    ) -> None:
        found = find_provider(provider) if isinstance(provider, str) else provider
        self._library = library
        self._counter = Counter(limiter, found, prices)
        self._body = body
        self._raises = raise_refusals
        self._unsent = unsent_errors(library)

    def ask(self, request: Any) -> Ask:
        """Read a request; a streamed body is left alone."""
        body = b""
        if isinstance(request.stream, self._library.ByteStream):
            body = request.read()  # in memory already
        timeouts = request.extensions.get("timeout") or {}
        tries = request.headers.get(_RETRY_COUNT, "0")
        return self._counter.ask(
            request.method,
            request.url.path,
            body,
            timeout=timeouts.get("read"),
            again=tries.isdecimal() and int(tries[:9]) > 0,
            options=request.extensions.get("ratekeeper"),
        )

    def plan(self, request: Any, watch: Watch) -> Generator[flow.Effect, Any, Any]:
        """Return the plan of one attempt."""
        return flow.attempt(
            self._counter,
            self.ask(request),
            self._body,
            functools.partial(watch.was_sent, unsent=self._unsent),
        )

    def answer(self, request: Any, error: Refusal) -> Any:
        """Turn a refusal of the limiter into an answer, or raise it where asked to."""
        if self._raises:
            raise error
        provider = self._counter.provider
        return refusal_response(self._library, provider, request, error)


def refusal_response(
    library: ModuleType,
    provider: Provider,
    request: Any,
    error: Refusal,
) -> Any:
    """Write the provider's own 429, which an SDK raises at once and does not retry.

    A retry that nothing has paid for gets a 503, as from a server in trouble.
    """
    facts = provider.read_request(request.method, request.url.path, b"")
    if isinstance(error, ProviderOverloaded):
        verdict = Verdict(kind=Kind.OVERLOADED, retry=False)
        status, headers, body = provider.unavailable(
            str(error), endpoint=facts.endpoint
        )
        return _answer(library, request, verdict, status, headers, body)
    wait_us = None
    if isinstance(error, LimitExceeded):
        wait_us = micros(error.retry_after_s)
    status, headers, body = provider.refusal(
        str(error), retry_after_us=wait_us, endpoint=facts.endpoint
    )
    kind = Kind.THROTTLED if wait_us is not None else Kind.IMPOSSIBLE
    verdict = Verdict(kind=kind, retry=False, retry_after_us=wait_us)
    return _answer(library, request, verdict, status, headers, body)


def _answer(
    library: ModuleType,
    request: Any,
    verdict: Verdict,
    status: int,
    headers: list[tuple[str, str]],
    body: bytes,
) -> Any:
    return library.Response(
        status,
        headers=headers,
        content=body,
        request=request,
        extensions={"ratekeeper": verdict},
    )


def unsent_errors(library: ModuleType) -> tuple[type[BaseException], ...]:
    """Return what is raised before a connection carries anything.

    A connect time-out is not among them: the SDKs' aiohttp transport calls every lost
    connection that, and only its cause tells.
    """
    return (
        library.ConnectError,
        library.PoolTimeout,
        library.ProxyError,
        library.UnsupportedProtocol,
    )


def never_left(error: BaseException, unsent: tuple[type[BaseException], ...]) -> bool:
    """Say whether an error means that the provider has not heard of the request."""
    aiohttp = sys.modules.get("aiohttp")
    if aiohttp is not None:
        unsent = (
            *unsent,
            aiohttp.ClientConnectorError,
            aiohttp.ConnectionTimeoutError,
        )
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, unsent):
            return True
        cause = cause.__cause__
    return False


class SyncDoor(Door):
    """A door for threads, in front of a transport."""

    def __init__(
        self,
        library: ModuleType,
        limiter: Limiter,
        provider: Provider | str,
        *,
        body: type,
        wrap: Any = None,
        raise_refusals: bool = False,
        prices: Prices | None = None,
    ) -> None:
        _expect(limiter, Limiter)
        super().__init__(library, limiter, provider, body, raise_refusals, prices)
        self._limiter = limiter
        self.wrap = library.HTTPTransport() if wrap is None else wrap

    def handle(self, request: Any) -> Any:
        """Send a request under a grant, or answer it with a refusal."""
        knows = isinstance(self.wrap, self._library.HTTPTransport)
        send = functools.partial(self.wrap.handle_request, request)
        try:
            with Watch(knows=knows).on(request) as watch:
                return flow.run(self.plan(request, watch), self._limiter, send)
        except REFUSALS as error:
            return self.answer(request, error)


class AsyncDoor(Door):
    """A door for tasks, in front of a transport."""

    def __init__(
        self,
        library: ModuleType,
        limiter: AsyncLimiter,
        provider: Provider | str,
        *,
        body: type,
        wrap: Any = None,
        raise_refusals: bool = False,
        prices: Prices | None = None,
    ) -> None:
        _expect(limiter, AsyncLimiter)
        super().__init__(library, limiter, provider, body, raise_refusals, prices)
        self._limiter = limiter
        self.wrap = library.AsyncHTTPTransport() if wrap is None else wrap

    async def handle(self, request: Any) -> Any:
        """Send a request under a grant, or answer it with a refusal."""
        knows = isinstance(self.wrap, self._library.AsyncHTTPTransport)
        send = functools.partial(self.wrap.handle_async_request, request)
        try:
            with AsyncWatch(knows=knows).on(request) as watch:
                plan = self.plan(request, watch)
                return await flow.run_async(plan, self._limiter, send)
        except REFUSALS as error:
            return self.answer(request, error)


def _expect(limiter: object, kind: type) -> None:
    if not isinstance(limiter, kind):
        msg = f"expected {kind.__name__}, not {type(limiter).__name__}"
        raise TypeError(msg)


class Watch:
    """Notices that a request has begun to leave, by the transport's trace events.

    `knows` says that the transport tells; one that never does is asked by the type of
    its error.
    """

    def __init__(self, *, knows: bool) -> None:
        self._knows = knows
        self._sent = False
        self._prior: Any = None

    @contextlib.contextmanager
    def on(self, request: Any) -> Iterator[Watch]:
        """Listen while the request is sent, beside any listener of the caller's."""
        extensions = request.extensions
        self._prior = extensions.get("trace")
        extensions["trace"] = self.hear
        try:
            yield self
        finally:
            del extensions["trace"]
            if self._prior is not None:
                extensions["trace"] = self._prior

    def note(self, name: str, info: Any) -> None:
        """Take in an event."""
        self._knows = True
        if name.endswith("send_request_headers.started"):
            # A proxy is asked to CONNECT first: the provider has not heard of that.
            self._sent |= info["request"].method != b"CONNECT"

    def hear(self, name: str, info: Any) -> Any:
        """Hear an event, and pass it on."""
        self.note(name, info)
        if self._prior is not None:
            self._prior(name, info)

    def was_sent(
        self, error: BaseException, *, unsent: tuple[type[BaseException], ...]
    ) -> bool:
        """Say whether the provider may have heard of the request."""
        return self._sent if self._knows else not never_left(error, unsent)


class AsyncWatch(Watch):
    """The same where listeners are awaited."""

    async def hear(self, name: str, info: Any) -> None:
        """Hear an event, and pass it on."""
        self.note(name, info)
        if self._prior is not None:
            await self._prior(name, info)
