"""LimitedTransport and AsyncLimitedTransport: limits below any httpx2 client or SDK.

Each wraps another transport and owns nothing else. Every attempt, an SDK's own retries
included, is one grant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2

from ratekeeper.client.door import AsyncDoor, SyncDoor
from ratekeeper.client.flow import AsyncMeteredStream, MeteredStream

if TYPE_CHECKING:
    from ratekeeper.client.prices import Prices
    from ratekeeper.limiter import AsyncLimiter, Limiter
    from ratekeeper.providers.catalog import Provider


class MeteredByteStream(MeteredStream, httpx2.SyncByteStream):
    """A metered stream that httpx2 takes for its own."""


class AsyncMeteredByteStream(AsyncMeteredStream, httpx2.AsyncByteStream):
    """A metered stream that httpx2 takes for its own."""


class LimitedTransport(httpx2.BaseTransport):
    """Sends each request once a limiter has granted it.

    A refusal becomes the provider's own 429 with the exact wait, so an SDK raises its
    own rate-limit error at once; with `raise_refusals` it is raised as it is. The wait
    in line is bounded by the request's read time-out. A request may carry
    `extensions={"ratekeeper": {...}}` with `key`, `priority`, `timeout`, `again`,
    `hold`, `also`, as in `acquire`; a response carries there what its error means.
    One limiter may serve any number of transports, threads and event loops; without
    `account=` it holds a limit of your own, and knows nothing of a call's flight.
    Where a limit counts money, `prices` say what calls cost: see `price_book`.

    Example:
        >>> limiter = Limiter("500 rpm", "120k tpm", account="openai")
        >>> transport = LimitedTransport(limiter, provider="openai")
        >>> client = httpx2.Client(transport=transport)
    """

    def __init__(
        self,
        limiter: Limiter,
        provider: Provider | str = "openai",
        *,
        wrap: httpx2.BaseTransport | None = None,
        raise_refusals: bool = False,
        prices: Prices | None = None,
    ) -> None:
        self._door = SyncDoor(
            httpx2,
            limiter,
            provider,
            wrap=wrap,
            body=MeteredByteStream,
            raise_refusals=raise_refusals,
            prices=prices,
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Wait in line, send, and meter the answer as it is read."""
        response: httpx2.Response = self._door.handle(request)
        return response

    def close(self) -> None:
        """Close the transport below."""
        self._door.wrap.close()


class AsyncLimitedTransport(httpx2.AsyncBaseTransport):
    """The same for `httpx2.AsyncClient` and the async SDKs; see `LimitedTransport`."""

    def __init__(
        self,
        limiter: AsyncLimiter,
        provider: Provider | str = "openai",
        *,
        wrap: httpx2.AsyncBaseTransport | None = None,
        raise_refusals: bool = False,
        prices: Prices | None = None,
    ) -> None:
        self._door = AsyncDoor(
            httpx2,
            limiter,
            provider,
            wrap=wrap,
            body=AsyncMeteredByteStream,
            raise_refusals=raise_refusals,
            prices=prices,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Wait in line, send, and meter the answer as it is read."""
        response: httpx2.Response = await self._door.handle(request)
        return response

    async def aclose(self) -> None:
        """Close the transport below."""
        await self._door.wrap.aclose()
